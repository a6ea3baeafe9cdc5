//! What the domain name system says: the TXT records of a name, asked for now.
//!
//! Not for: resolving hosts to connect to. Always: nothing is remembered here, because whoever asks has just changed the record; a
//! name that does not exist has no records, which is an answer; a server that does not answer is not.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use crate::error::Error;

/// For one try at one server; there are two.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the name servers.
pub(crate) struct Dns {
    resolver: TokioResolver,
}

impl Dns {
    /// Through a server, or through those that the system names.
    pub(crate) fn new(server: Option<SocketAddr>) -> Result<Self, Error> {
        let away =
            |error: hickory_resolver::net::NetError| Error::Away(format!("the system's name servers cannot be had: {error}"));
        let mut builder = match server {
            None => TokioResolver::builder_tokio().map_err(away)?,
            Some(server) => {
                let at = |mut connection: ConnectionConfig| {
                    connection.port = server.port();
                    connection
                };
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at);
                let server = NameServerConfig::new(server.ip(), true, connections.into());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = PATIENCE;
        options.attempts = 2;
        Ok(Self { resolver: builder.build().map_err(away)? })
    }

    /// The texts of a name's TXT records, each joined from its parts (RFC 7208, section 3.3).
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        // The dot keeps the system's search list out.
        match self.resolver.txt_lookup(format!("{name}.")).await {
            Ok(found) => Ok(found.answers().iter().filter_map(|record| text(&record.data)).collect()),
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(Error::Away(format!("the name servers do not answer for {name}: {error}"))),
        }
    }
}

fn text(data: &RData) -> Option<String> {
    let RData::TXT(record) = data else { return None };
    Some(String::from_utf8_lossy(&record.txt_data.concat()).into_owned())
}
