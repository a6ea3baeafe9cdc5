//! Objects: files that are too large for rows, in a folder or in a provider's store (`INSULA_STORE`), each tenant's under a prefix of its own.
//!
//! For: what jobs make and people download: exports, reports, uploads. Not for: what belongs into a transaction with rows; an object is
//! there before the row that names it is committed, so a job removes what no row came to name.
//! Always: no object is named without a tenant ([`crate::Tenant::objects`]); one that is not [`Upload::finish`]ed is never seen.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use insula_core::{Kind, TenantId};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};

use crate::config::Store;

/// What is sent at a time. Providers take 10,000 parts: objects up to 80 GB.
const PART: usize = 8 << 20;
/// Parts on their way at once.
const AT_ONCE: usize = 2;

/// What can go wrong with an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A name that is none.
    #[error("{0:?} names no object: use letters, digits, dots, dashes and underscores, with slashes between")]
    Name(String),
    /// The folder cannot be used.
    #[error("the object store {}: {source}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store refuses, or is away.
    #[error("the object store: {0}")]
    Store(#[from] object_store::Error),
}

impl ObjectError {
    /// What a caller would do about it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Name(_) => Kind::Internal,
            Self::Folder { .. } | Self::Store(_) => Kind::Unavailable,
        }
    }
}

/// The store of a process. Opened when it is first needed: an application without objects needs no folder.
#[derive(Debug)]
pub(crate) struct Objects {
    address: Store,
    store: OnceLock<Arc<dyn ObjectStore>>,
}

impl Objects {
    pub(crate) const fn new(address: Store) -> Self {
        Self { address, store: OnceLock::new() }
    }

    fn store(&self) -> Result<Arc<dyn ObjectStore>, ObjectError> {
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let opened = match &self.address {
            Store::Folder(folder) => {
                let fault = |source| ObjectError::Folder { folder: folder.clone(), source };
                make_folder(folder).map_err(fault)?;
                Arc::new(LocalFileSystem::new_with_prefix(folder)?) as Arc<dyn ObjectStore>
            }
            Store::Url(url) => {
                // Its settings are the provider's variables, in lower case.
                let settings =
                    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
                let settings = settings.map(|(name, value)| (name.to_ascii_lowercase(), value));
                let (store, path) = object_store::parse_url_opts(url, settings)?;
                Arc::new(PrefixStore::new(store, path))
            }
        };
        // Who comes second takes the first's.
        Ok(self.store.get_or_init(|| opened).clone())
    }
}

/// Only the application's own account is to read what is in it.
fn make_folder(folder: &FilePath) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if folder.is_dir() { Ok(()) } else { std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder) }
}

/// A tenant's objects: whatever is named here is this tenant's.
#[derive(Clone)]
pub struct TenantObjects {
    objects: Arc<Objects>,
    tenant: TenantId,
}

impl fmt::Debug for TenantObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TenantObjects").field(&self.tenant).finish()
    }
}

impl TenantObjects {
    pub(crate) const fn new(objects: Arc<Objects>, tenant: TenantId) -> Self {
        Self { objects, tenant }
    }

    /// Begins an object: nobody sees it before [`Upload::finish`]. One of that name is replaced then.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn create(&self, name: &str) -> Result<Upload, ObjectError> {
        let path = self.path(name)?;
        let upload = self.objects.store()?.put_multipart(&path).await?;
        Ok(Upload { parts: Some(WriteMultipart::new_with_chunk_size(upload, PART)), bytes: 0 })
    }

    /// An object, piece by piece; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn open(&self, name: &str) -> Result<Option<Object>, ObjectError> {
        match self.objects.store()?.get(&self.path(name)?).await {
            Ok(found) => {
                Ok(Some(Object { bytes: found.meta.size, body: found.into_stream().map_err(ObjectError::from).boxed() }))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes everything under `folder`, also what killed processes had begun there. Nothing there is no error.
    ///
    /// # Errors
    /// [`ObjectError`]; some may be gone then.
    pub async fn remove_all(&self, folder: &str) -> Result<(), ObjectError> {
        let path = self.path(folder)?;
        if let Store::Folder(root) = &self.objects.address {
            // What was begun is not listed as an object.
            let folder = root.join(path.as_ref());
            return match tokio::fs::remove_dir_all(&folder).await {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(ObjectError::Folder { folder, source }),
                _ => Ok(()),
            };
        }
        let store = self.objects.store()?;
        let found = store.list(Some(&path)).map_ok(|object| object.location).boxed();
        let removed: Result<Vec<Path>, _> = store.delete_stream(found).try_collect().await;
        match removed {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self, name: &str) -> Result<Path, ObjectError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let good = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
        if name.len() > 500 || !name.split('/').all(good) {
            return Err(ObjectError::Name(name.to_owned()));
        }
        Path::parse(format!("tenants/{}/{name}", self.tenant)).map_err(|_| ObjectError::Name(name.to_owned()))
    }
}

/// An object that is there.
pub struct Object {
    /// Its size.
    pub bytes: u64,
    /// What is in it.
    pub body: BoxStream<'static, Result<Bytes, ObjectError>>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// An object that is being written. Dropped before it is finished, it never was.
pub struct Upload {
    parts: Option<WriteMultipart>,
    bytes: u64,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Upload {
    /// Goes on; waits while as much is on its way as memory is set apart for.
    ///
    /// # Errors
    /// [`ObjectError`]; the object will not come to be.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        if let Some(parts) = &mut self.parts {
            parts.wait_for_capacity(AT_ONCE).await?;
            self.bytes += bytes.len() as u64;
            parts.put(bytes);
        }
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From here on the object is there, whole. Answers its size.
    ///
    /// # Errors
    /// [`ObjectError`]; then it is not there.
    pub async fn finish(mut self) -> Result<u64, ObjectError> {
        if let Some(parts) = self.parts.take() {
            parts.finish().await?;
        }
        Ok(self.bytes)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Providers keep, and bill, the parts of what was not finished until they are told.
        if let (Some(parts), Ok(runtime)) = (self.parts.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = parts.abort().await {
                    tracing::debug!(%error, "the parts of an unfinished object stay where they are");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(folder: &FilePath) -> impl Fn(TenantId) -> TenantObjects + use<> {
        let objects = Arc::new(Objects::new(Store::Folder(folder.to_owned())));
        move |tenant| TenantObjects::new(objects.clone(), tenant)
    }

    async fn write(objects: &TenantObjects, name: &str, text: &'static str) {
        let mut upload = objects.create(name).await.expect("begins");
        upload.write(Bytes::from_static(text.as_bytes())).await.expect("goes on");
        assert_eq!(upload.finish().await.expect("is there"), text.len() as u64);
    }

    async fn read(objects: &TenantObjects, name: &str) -> Option<String> {
        let object = objects.open(name).await.expect("answers")?;
        let parts: Vec<Bytes> = object.body.try_collect().await.expect("a body");
        Some(String::from_utf8(parts.concat()).expect("text"))
    }

    #[tokio::test]
    async fn a_tenant_s_objects_are_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = objects(&folder.path().join("objects"));
        let (acme, globex) = (of(TenantId::new()), of(TenantId::new()));
        write(&acme, "exports/1/all.zip", "acme's").await;
        write(&globex, "exports/1/all.zip", "globex's").await;
        assert_eq!(read(&acme, "exports/1/all.zip").await.as_deref(), Some("acme's"));
        assert_eq!(read(&globex, "exports/1/all.zip").await.as_deref(), Some("globex's"));
        assert_eq!(read(&acme, "exports/2/all.zip").await, None);
        acme.remove_all("exports/1").await.expect("removes");
        acme.remove_all("exports/1").await.expect("removes nothing");
        assert_eq!(read(&acme, "exports/1/all.zip").await, None);
        assert_eq!(read(&globex, "exports/1/all.zip").await.as_deref(), Some("globex's"));
    }

    #[tokio::test]
    async fn names_lead_nowhere_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let acme = objects(folder.path())(TenantId::new());
        for bad in ["", "/", "a//b", "../x", "a/../../b", ".", "a/..", "/etc/passwd", "a\\b", "a b", "%2e%2e/x", "ä", "a\0"] {
            assert!(matches!(acme.open(bad).await, Err(ObjectError::Name(_))), "{bad:?}");
            assert!(matches!(acme.create(bad).await, Err(ObjectError::Name(_))), "{bad:?}");
            assert!(matches!(acme.remove_all(bad).await, Err(ObjectError::Name(_))), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_finished_never_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let acme = objects(folder.path())(TenantId::new());
        let mut upload = acme.create("a/b").await.expect("begins");
        upload.write(Bytes::from_static(&[7; 1000])).await.expect("goes on");
        assert_eq!(read(&acme, "a/b").await, None);
        // As a killed process leaves it: begun, and nobody's.
        std::mem::forget(upload);
        assert_eq!(read(&acme, "a/b").await, None);
        acme.remove_all("a").await.expect("removes");
        let left = std::fs::read_dir(folder.path().join("tenants").join(acme.tenant.to_string())).expect("a folder").count();
        assert_eq!(left, 0);
    }
}
