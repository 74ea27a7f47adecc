//! Attributes that say which file a record came from.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use tailwater_pdata::{Column, Key, LogsBatch, Value};

use super::logfs::LogFs;

/// Which of them are wanted (`include_file_*`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileAttributeRules {
    /// `log.file.name`.
    pub name: bool,
    /// `log.file.path`.
    pub path: bool,
    /// `log.file.name_resolved`: after following links.
    pub name_resolved: bool,
    /// `log.file.path_resolved`: after following links.
    pub path_resolved: bool,
    /// `log.file.owner.name`.
    pub owner: bool,
    /// `log.file.owner.group.name`.
    pub group: bool,
    /// `log.file.permissions`: three octal digits.
    pub permissions: bool,
    /// `log.file.record_number`, from 1.
    pub record_number: bool,
    /// `log.file.record_offset` in bytes.
    pub record_offset: bool,
}

/// The attributes of one file, made once per name it has.
#[derive(Clone, Debug, Default)]
pub struct FileAttributes(Box<[(Key, Value)]>);

/// Names of attributes, shared by all files.
static KEYS: LazyLock<[Key; 7]> = LazyLock::new(|| {
    [
        "log.file.name",
        "log.file.path",
        "log.file.name_resolved",
        "log.file.path_resolved",
        "log.file.owner.name",
        "log.file.owner.group.name",
        "log.file.permissions",
    ]
    .map(Key::from)
});

impl FileAttributes {
    /// The wanted attributes of the file at `path`. What cannot be found out is left out.
    pub fn of(fs: &dyn LogFs, path: &Path, rules: &FileAttributeRules) -> FileAttributes {
        let mut list = Vec::new();
        let mut add = |key: &str, value: String| {
            let key = KEYS.iter().find(|k| ***k == *key);
            list.extend(key.map(|k| (k.clone(), Value::from(value))));
        };
        let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
        if rules.name {
            name(path).into_iter().for_each(|n| add("log.file.name", n));
        }
        if rules.path {
            add("log.file.path", path.to_string_lossy().into_owned());
        }
        if rules.name_resolved || rules.path_resolved {
            let resolved = fs.resolve(path).unwrap_or_else(|_| path.to_path_buf());
            if rules.name_resolved {
                name(&resolved)
                    .into_iter()
                    .for_each(|n| add("log.file.name_resolved", n));
            }
            if rules.path_resolved {
                add(
                    "log.file.path_resolved",
                    resolved.to_string_lossy().into_owned(),
                );
            }
        }
        if (rules.owner || rules.group || rules.permissions)
            && let Ok(m) = fs.owner(path)
        {
            if rules.owner {
                add("log.file.owner.name", name_of_id("/etc/passwd", m.uid));
            }
            if rules.group {
                let group = name_of_id("/etc/group", m.gid);
                add("log.file.owner.group.name", group);
            }
            if rules.permissions {
                add("log.file.permissions", format!("{:03o}", m.mode & 0o777));
            }
        }
        FileAttributes(list.into_boxed_slice())
    }

    /// Adds them to every record of `batch`.
    pub fn add_to(&self, batch: &mut LogsBatch) {
        for (key, value) in &self.0 {
            batch
                .attributes
                .set(key.clone(), Column::Const(value.clone()));
        }
    }
}

/// The name of a numeric id in a file in passwd(5) or group(5) form; the number if it has none.
fn name_of_id(database: &str, id: u32) -> String {
    let text = fs::read_to_string(database).unwrap_or_default();
    let line = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    });
    line.map_or_else(|| id.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::logfs::OsLogFs;
    use super::*;

    #[test]
    fn attributes_follow_links_only_where_asked() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap().join("real.log");
        fs::write(&real, "x").unwrap();
        let link = dir.path().join("link.log");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let rules = FileAttributeRules {
            name: true,
            path: true,
            name_resolved: true,
            path_resolved: true,
            owner: true,
            permissions: true,
            ..Default::default()
        };
        let FileAttributes(list) = FileAttributes::of(&OsLogFs, &link, &rules);
        let get = |k: &str| {
            list.iter()
                .find(|(key, _)| &**key == k)
                .map(|(_, v)| v.clone())
        };
        assert_eq!(get("log.file.name"), Some("link.log".into()));
        assert_eq!(get("log.file.path"), Some(link.to_str().unwrap().into()));
        assert_eq!(get("log.file.name_resolved"), Some("real.log".into()));
        assert_eq!(
            get("log.file.path_resolved"),
            Some(real.to_str().unwrap().into())
        );
        assert!(get("log.file.owner.name").is_some());
        let Some(Value::Str(mode)) = get("log.file.permissions") else {
            panic!()
        };
        assert_eq!(mode.len(), 3);
    }
}
