//! Asking sentinels and nodes who serves what.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use redis::{Cmd, ConnectionInfo, Value, cmd};
use tokio::{task::JoinSet, time::timeout_at};

use super::{
    super::{
        dialer::{Dialer, elsewhere},
        keys::BUCKETS,
        trouble::told,
    },
    LOOK_TIMEOUT, Map, Place, SentinelNode, Servers,
};
use crate::clock;

/// For other sentinels, once one has named the master.
const OTHERS: Duration = Duration::from_millis(100);

impl Servers {
    pub(super) async fn ask_sentinels(&self, master: &str, nodes: &[SentinelNode]) -> Result<Map, String> {
        let mut why = "no sentinel is named".to_owned();
        let question = cmd("SENTINEL").arg("get-master-addr-by-name").arg(master).to_owned();
        // All at once: one that hangs must not keep the others from it. What most of those say is believed who answer about
        // as soon as the first: one that was cut off from the others may still name a master of its own.
        let mut asking = JoinSet::new();
        for (index, node) in nodes.iter().enumerate() {
            let (dialer, question, asked) = (self.dialer.clone(), question.clone(), node.asked.clone());
            asking.spawn(async move {
                let mut why = String::new();
                for Place(asked) in &asked {
                    let said = match ask_once(&dialer, asked, &question).await {
                        Ok(Value::Nil) => "knows no such master".to_owned(),
                        Ok(answer) => match redis::from_redis_value::<(String, u16)>(answer) {
                            Ok(master) => return Ok((index, master)),
                            Err(error) => error.to_string(),
                        },
                        Err(error) => error,
                    };
                    why = format!("{} {said}", asked.addr());
                }
                Err(why)
            });
        }
        let mut named: Vec<(usize, (String, u16))> = Vec::new();
        let mut patience = clock::now() + LOOK_TIMEOUT * 3;
        while let Ok(Some(asked)) = timeout_at(patience, asking.join_next()).await {
            match asked {
                Ok(Ok(answer)) => {
                    if named.is_empty() {
                        patience = clock::now() + OTHERS;
                    }
                    named.push(answer);
                }
                Ok(Err(said)) => why = said,
                Err(error) => why = error.to_string(),
            }
        }
        let votes = |master: &(String, u16)| named.iter().filter(|(_, named)| named == master).count();
        // Of several, the first one that was named.
        let Some((index, (host, port))) = named.iter().rev().max_by_key(|(_, master)| votes(master)) else {
            return Err(format!("no sentinel names the master {master:?}: {why}"));
        };
        let Place(server) = &nodes[*index].server;
        Ok(Map::single(self.server(&elsewhere(server, host, *port))))
    }

    pub(super) async fn ask_cluster(&self, nodes: &[Place]) -> Result<Map, String> {
        let mut why = "no node is named".to_owned();
        let known = self.all();
        let question = cmd("CLUSTER").arg("SLOTS").to_owned();
        for node in known.iter().map(|server| &server.place).chain(nodes.iter().map(|Place(node)| node)) {
            match ask_once(&self.dialer, node, &question).await {
                Ok(answer) => match ranges(answer) {
                    Some(ranges) => return Ok(self.map_of(node, &ranges)),
                    None => why = format!("{}: CLUSTER SLOTS was answered by something else", node.addr()),
                },
                Err(error) => why = format!("{}: {error}", node.addr()),
            }
        }
        Err(format!("no node tells of the cluster: {why}"))
    }

    fn map_of(&self, asked: &ConnectionInfo, ranges: &[Range]) -> Map {
        let mut map = Map { servers: Vec::new(), owners: vec![None; usize::from(BUCKETS)] };
        for range in ranges {
            let place = match &range.host {
                Some(host) => elsewhere(asked, host, range.port),
                None => asked.clone(),
            };
            let server = self.server(&place);
            let index = map.servers.iter().position(|known| Arc::ptr_eq(known, &server)).unwrap_or_else(|| {
                map.servers.push(server);
                map.servers.len() - 1
            });
            for (owner, slot) in map.owners.iter_mut().zip(&self.slots) {
                if (range.first..=range.last).contains(slot) {
                    *owner = Some(index);
                }
            }
        }
        map
    }
}

/// Asks a sentinel or a node one question, on a connection for that alone: rare, and never to wait behind others.
async fn ask_once(dialer: &Dialer, node: &ConnectionInfo, question: &Cmd) -> Result<Value, String> {
    let asked = async {
        let mut connection = dialer.dial(node).await?;
        connection.send_packed_command(question).await?.extract_error()
    };
    match tokio::time::timeout(LOOK_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| told(&error)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Slots from first to last, and their master; no host: the one that was asked.
struct Range {
    first: u16,
    last: u16,
    host: Option<String>,
    port: u16,
}

/// Reads `CLUSTER SLOTS`.
fn ranges(answer: Value) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else { return None };
    let range = |range: Value| {
        let Value::Array(parts) = range else { return None };
        let mut parts = parts.into_iter();
        let (first, last) = (number(&parts.next()?)?, number(&parts.next()?)?);
        let Value::Array(master) = parts.next()? else { return None };
        // A node that does not know its own host tells of none.
        let host =
            if let Value::BulkString(host) = master.first()? { String::from_utf8(host.clone()).ok() } else { None };
        let host = host.filter(|host| !host.is_empty() && host != "?");
        Some(Range { first, last, host, port: number(master.get(1)?)? })
    };
    ranges.into_iter().map(range).collect()
}

/// The masters in an answer of `CLUSTER SLOTS`, each once; no host: that of the node which was asked.
pub(crate) fn masters(slots: Value) -> Option<BTreeSet<(Option<String>, u16)>> {
    Some(ranges(slots)?.into_iter().map(|range| (range.host, range.port)).collect())
}

fn number(value: &Value) -> Option<u16> {
    if let Value::Int(number) = value { u16::try_from(*number).ok() } else { None }
}
