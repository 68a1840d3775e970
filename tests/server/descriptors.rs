//! What happens when file descriptors run out, in a process of its own, whose limit a shell sets.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::harness::{Client, Server};

/// Makes this test program serve instead of test.
const SERVE: &str = "ONCEGATE_TEST_SERVE";
const NAME: &str = "descriptors::accepting_pauses_when_descriptors_run_out_and_goes_on_when_they_are_back";

#[test]
fn accepting_pauses_when_descriptors_run_out_and_goes_on_when_they_are_back() {
    if env::var_os(SERVE).is_some() {
        return serve();
    }
    let mut process = with_few_descriptors();
    let address = listening(&mut process);
    let mut clients: Vec<_> = (0..60).map(|_| connect(address)).collect();
    assert_eq!(get(&mut clients[0]), Some(200), "those that were accepted are served");

    sleep(Duration::from_millis(300));
    let before = cpu_ticks(&process);
    sleep(Duration::from_secs(1));
    let spent = cpu_ticks(&process) - before;
    assert!(spent <= 20, "{spent} ticks of a hundred: accepting spins");
    assert_eq!(get(clients.last_mut().unwrap()), None, "all are accepted: the limit was not reached");

    drop(clients);
    let mut client = connect(address);
    client.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(get(&mut client), Some(200));
    drop(process.stdin.take());
    process.wait().unwrap();
}

fn serve() {
    let server = Server::start();
    println!("\nlistening {}", server.address);
    // Until the parent closes its end, or is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

fn with_few_descriptors() -> Child {
    Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(SERVE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn listening(process: &mut Child) -> SocketAddr {
    let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
    let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening ").map(str::to_owned));
    address.expect("the child says where it listens").parse().unwrap()
}

fn connect(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    Client { stream }
}

fn get(client: &mut Client) -> Option<u16> {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").answer().ok().map(|(status, ..)| status)
}

/// User and system time of a process, in hundredths of a second.
fn cpu_ticks(process: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
