//! Whether the store's user may run all that the store needs. What one command lacks shows late: a retry that is refused for
//! good, an unknown record that no list names.

use redis::{Cmd, aio::MultiplexedConnection, cmd};

use super::{PROBE_MS, Report, told};
use crate::config::settled::{Redis, RedisServers};

/// Runs each command once, on keys of the prefix that are deleted at once; says which are not allowed.
pub(super) async fn examine(redis: &Redis, subject: &str, master: &mut MultiplexedConnection, report: &mut Report) {
    let token = format!("{:08x}", getrandom::u32().unwrap_or_default());
    let commands = commands(redis, &format!("{}{{doctor:{token}}}", redis.prefix));
    let mut pipe = redis::pipe();
    for (_, command) in &commands {
        pipe.add_command(command.clone());
    }
    let answers = match master.send_packed_commands(&pipe, 0, commands.len()).await {
        Ok(answers) => answers,
        Err(error) => return report.warning(subject, told(&error), "ask again: what this user may run is not known"),
    };
    // Whatever else is wrong with them (the slot is another server's, the server no cluster) is not asked here.
    let lacks = |answer: redis::Value| answer.extract_error().is_err_and(|error| error.code() == Some("NOPERM"));
    let lacking = commands.iter().zip(answers).filter_map(|((name, _), answer)| lacks(answer).then_some(*name));
    let lacking: Vec<_> = lacking.collect();
    if !lacking.is_empty() {
        report.failure(
            subject,
            format!("this user may not run {}: requests or operators will be refused", lacking.join(", ")),
            format!("ACL SETUSER … +{}, on keys of the prefix", lacking.join(" +")),
        );
    }
}

/// Each command by its name in a rule, with arguments that do no harm.
fn commands(redis: &Redis, probe: &str) -> Vec<(&'static str, Cmd)> {
    // In the same slot.
    let index = format!("{probe}index");
    let keyed = |name: &str, key: &str| cmd(name).arg(key).to_owned();
    let mut commands = vec![
        ("set", keyed("SET", probe).arg("x").arg("PX").arg(PROBE_MS).to_owned()),
        ("get", keyed("GET", probe)),
        ("getrange", keyed("GETRANGE", probe).arg(0).arg(0).to_owned()),
        ("setrange", keyed("SETRANGE", probe).arg(0).arg("y").to_owned()),
        ("exists", keyed("EXISTS", probe)),
        ("pttl", keyed("PTTL", probe)),
        ("pexpire", keyed("PEXPIRE", probe).arg(PROBE_MS).to_owned()),
        ("zadd", keyed("ZADD", &index).arg(0).arg("x").to_owned()),
        ("zrange", keyed("ZRANGE", &index).arg(0).arg(0).to_owned()),
        ("zrem", keyed("ZREM", &index).arg("x").to_owned()),
        ("del", keyed("DEL", probe).arg(&index).to_owned()),
        ("eval", cmd("EVAL").arg("return 1").arg(0).to_owned()),
        ("evalsha", cmd("EVALSHA").arg("0".repeat(40)).arg(0).to_owned()),
        ("script|load", cmd("SCRIPT").arg("LOAD").arg("return 1").to_owned()),
        ("scan", cmd("SCAN").arg(0).arg("COUNT").arg(1).to_owned()),
        ("dbsize", cmd("DBSIZE")),
    ];
    if redis.replicas > 0 {
        commands.push(("wait", cmd("WAIT").arg(0).arg(1).to_owned()));
    }
    if matches!(redis.servers, RedisServers::Cluster(_)) {
        commands.push(("asking", cmd("ASKING")));
        commands.push(("cluster|slots", cmd("CLUSTER").arg("SLOTS").to_owned()));
    }
    commands
}
