//! Who the masters are: sentinels and nodes of a cluster are asked.

use std::collections::BTreeSet;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisResult, cmd};

use super::{super::Report, Doctor, SUBJECT, elsewhere};

impl Doctor<'_> {
    /// Asks every sentinel who the master is; the first answer is believed.
    pub(super) async fn ask_sentinels(
        &self,
        master: &str,
        nodes: &[String],
        report: &mut Report,
    ) -> Vec<ConnectionInfo> {
        let mut named = Vec::new();
        for node in nodes {
            let Some(info) = self.parsed(node, report) else { continue };
            let subject = format!("sentinel {}", info.addr());
            let template = info.clone();
            let ask = async |info: ConnectionInfo| -> RedisResult<Option<(String, u16)>> {
                let settings = info.redis_settings().clone().set_db(0);
                let mut sentinel = self.connect(info.set_redis_settings(settings)).await?;
                cmd("SENTINEL").arg("get-master-addr-by-name").arg(master).query_async(&mut sentinel).await
            };
            // Whether sentinels want the servers' credentials is said nowhere: like the store, without them next.
            let answer = match (ask(info).await, node.as_str().into_connection_info()) {
                (Err(_), Ok(bare)) => ask(bare).await,
                (answer, _) => answer,
            };
            match answer {
                Ok(Some((host, port))) => {
                    report.ok(&subject, format!("says that the master of {master:?} is {host}:{port}"));
                    named.push(elsewhere(&template, host, port));
                }
                Ok(None) => {
                    report.failure(&subject, format!("knows no master {master:?}"), "mend store.redis.sentinel.master")
                }
                Err(error) => {
                    report.warning(&subject, error.to_string(), "start it: with too few of them nothing fails over")
                }
            }
        }
        let addresses: BTreeSet<_> = named.iter().map(|info| info.addr().to_string()).collect();
        if addresses.len() > 1 {
            report.failure(
                SUBJECT,
                "the sentinels name different masters",
                "wait for the failover to end, and ask again",
            );
        }
        if named.is_empty() {
            report.failure(SUBJECT, "no sentinel names a master", "mend store.redis.sentinel.nodes, or start them");
        }
        named.truncate(1);
        named
    }

    /// Asks the first node that answers for the cluster's masters.
    pub(super) async fn ask_cluster(&self, nodes: &[String], report: &mut Report) -> Vec<ConnectionInfo> {
        for node in nodes {
            let Some(info) = self.parsed(node, report) else { continue };
            let subject = format!("cluster node {}", info.addr());
            let template = info.clone();
            let answer: RedisResult<(String, String)> = async {
                let mut node = self.connect(info.clone()).await?;
                let state = cmd("CLUSTER").arg("INFO").query_async(&mut node).await?;
                Ok((state, cmd("CLUSTER").arg("NODES").query_async(&mut node).await?))
            }
            .await;
            let answer = match answer {
                // The store needs neither: it asks for the slots.
                Err(error) if error.code() == Some("NOPERM") => match self.masters_by_slots(info).await {
                    Ok(masters) => {
                        report.warning(
                            &subject,
                            format!(
                                "serves slots of {} masters; this user may not ask whether it is whole",
                                masters.len()
                            ),
                            "ACL SETUSER … +cluster|info +cluster|nodes, for this command alone",
                        );
                        return masters;
                    }
                    Err(error) => Err(error),
                },
                answer => answer,
            };
            match answer {
                Ok((state, nodes)) => {
                    let masters: Vec<_> =
                        masters(&nodes).map(|(host, port)| elsewhere(&template, host, port)).collect();
                    if state.contains("cluster_state:ok") {
                        report.ok(&subject, format!("the cluster is whole: {} masters", masters.len()));
                    } else {
                        report.failure(
                            &subject,
                            "the cluster does not serve all slots",
                            "redis-cli --cluster check says which",
                        );
                    }
                    return masters;
                }
                Err(error) => {
                    report.warning(&subject, error.to_string(), "start it, or name another in store.redis.cluster")
                }
            }
        }
        report.failure(SUBJECT, "no node of the cluster answers", "mend store.redis.cluster, or start them");
        Vec::new()
    }

    async fn masters_by_slots(&self, node: ConnectionInfo) -> RedisResult<Vec<ConnectionInfo>> {
        let mut connection = self.connect(node.clone()).await?;
        let slots = cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
        let master = |(host, port)| match (host, node.addr()) {
            (Some(host), _) => elsewhere(&node, host, port),
            (None, ConnectionAddr::Tcp(own, _) | ConnectionAddr::TcpTls { host: own, .. }) => {
                elsewhere(&node, own.clone(), port)
            }
            (None, _) => node.clone(),
        };
        Ok(crate::store::redis::masters(slots).unwrap_or_default().into_iter().map(master).collect())
    }
}

/// The masters in an answer of `CLUSTER NODES`: `ID HOST:PORT@BUS[,NAME] FLAGS MASTER …`.
pub(in crate::cli::doctor) fn masters(nodes: &str) -> impl Iterator<Item = (String, u16)> + '_ {
    nodes.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (address, flags) = (fields.next()?, fields.next()?);
        let flags: Vec<_> = flags.split(',').collect();
        if !flags.contains(&"master") || flags.contains(&"fail") || flags.contains(&"noaddr") {
            return None;
        }
        let (host, port) = address.split('@').next()?.rsplit_once(':')?;
        Some((host.to_owned(), port.parse().ok()?))
    })
}
