//! Which bus there is: events in the store, or a stream of NATS JetStream.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailwater_control_plane::bus::jetstream::Address;
use tailwater_control_plane::bus::{Bus, EmbeddedBus, JetStreamBus};
use tailwater_control_plane::store::Store;

use crate::secret;

/// A NATS, as the command line names it.
#[derive(Debug, Default)]
pub struct Nats<'a> {
    /// URLs, or a file with them in its first line that nobody else may read.
    pub place: &'a str,
    /// The name of the stream.
    pub stream: &'a str,
    /// A file of credentials that nobody else may read.
    pub credentials: Option<&'a Path>,
    /// Whom to trust instead of the system's authorities.
    pub authorities: Option<&'a Path>,
    /// What to show, and its key.
    pub certificate: Option<(&'a Path, &'a Path)>,
    /// Other machines may be spoken to without TLS.
    pub plain: bool,
}

/// The one that is named, over which consumers keep in `store` how far they are; without one, the events of `store`.
///
/// # Errors
/// What is named cannot be used; for people.
pub fn open(named: Option<Nats<'_>>, store: Arc<dyn Store>) -> Result<Arc<dyn Bus>, String> {
    let Some(nats) = named else {
        return Ok(Arc::new(EmbeddedBus::new(store, wall_ns)));
    };
    let urls = match nats.place.contains("://") {
        true => nats.place.to_owned(),
        false => {
            let text = secret::read(Path::new(nats.place))?;
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
    };
    let credentials = nats.credentials.map(secret::read).transpose()?;
    let owned = |path: &Path| -> PathBuf { path.to_owned() };
    let address = Address::parse(&urls)?
        .with_credentials(credentials)
        .trusting(nats.authorities.map(owned))
        .showing(nats.certificate.map(|(c, k)| (owned(c), owned(k))))
        .plainly(nats.plain);
    tracing::info!("events go over the bus {address}, stream {}", nats.stream);
    Ok(Arc::new(JetStreamBus::new(address, nats.stream, store)?))
}

fn wall_ns() -> i64 {
    i64::try_from(crate::now_ms())
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tailwater_control_plane::store::SqliteStore;

    use super::*;

    /// Guarantee: secrets are read of files that nobody else may read, and of no others; a mistake is said without them.
    #[test]
    fn places_are_urls_or_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bus");
        fs::write(&file, "nats://me:s3cret@127.0.0.1:1\n").unwrap();
        let opened = |place: &str, credentials| {
            let store = Arc::new(SqliteStore::in_memory().unwrap());
            let nats = Nats {
                place,
                stream: "events",
                credentials,
                ..Nats::default()
            };
            open(Some(nats), store).map(drop)
        };
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let path = file.to_str().unwrap();
        assert!(
            opened(path, None)
                .unwrap_err()
                .contains("others may read it")
        );
        mode(0o600);
        opened(path, None).unwrap();
        let none = opened("nats://127.0.0.1", Some(&*file)).unwrap_err();
        assert!(
            none.contains("credentials") && !none.contains("s3cret"),
            "{none}"
        );
        opened("nats://127.0.0.1:1,tls://nats.example", None).unwrap();
        assert!(opened("http://127.0.0.1", None).is_err());
    }
}
