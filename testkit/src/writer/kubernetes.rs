//! The directories of a Kubernetes node's logs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Which container a log belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Name of the container.
    pub name: String,
    /// Id of the container, 64 hex digits with containerd.
    pub id: String,
    /// How often it has been restarted; names the log file.
    pub restarts: u32,
}

/// `pods/` and `containers/` below a root, as below `/var/log`.
#[derive(Debug, Clone)]
pub struct NodeLogs {
    root: PathBuf,
}

impl NodeLogs {
    /// Makes both directories.
    ///
    /// # Errors
    /// What creating them fails with.
    pub fn create(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(root.join("pods"))?;
        fs::create_dir_all(root.join("containers"))?;
        Ok(Self { root })
    }

    /// `pods/<namespace>_<pod>_<uid>/<container>/<restarts>.log`; nothing is created.
    pub fn log_path(&self, container: &Container) -> PathBuf {
        self.pod_dir(container)
            .join(&container.name)
            .join(format!("{}.log", container.restarts))
    }

    /// `containers/<pod>_<namespace>_<container>-<id>.log`.
    pub fn link_path(&self, container: &Container) -> PathBuf {
        let Container {
            namespace,
            pod,
            name,
            id,
            ..
        } = container;
        self.root
            .join("containers")
            .join(format!("{pod}_{namespace}_{name}-{id}.log"))
    }

    /// Makes the container's directory and the link to its log, and returns the log's path. The
    /// log itself is the writer's to create; until then the link points nowhere.
    ///
    /// # Errors
    /// What creating them fails with, an existing link of that name included.
    pub fn add(&self, container: &Container) -> io::Result<PathBuf> {
        let path = self.log_path(container);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        symlink(&path, self.link_path(container))?;
        Ok(path)
    }

    /// Removes the pod's directory with all logs, and this container's link, as when a pod is
    /// deleted. What its writer wrote there has to be reported as removed by the test.
    ///
    /// # Errors
    /// What removing fails with.
    pub fn remove(&self, container: &Container) -> io::Result<()> {
        fs::remove_dir_all(self.pod_dir(container))?;
        fs::remove_file(self.link_path(container))
    }

    /// The directory that holds `pods/` and `containers/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn pod_dir(&self, container: &Container) -> PathBuf {
        let Container {
            namespace,
            pod,
            uid,
            ..
        } = container;
        self.root
            .join("pods")
            .join(format!("{namespace}_{pod}_{uid}"))
    }
}
