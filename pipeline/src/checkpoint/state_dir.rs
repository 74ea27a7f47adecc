//! Where state lives when nothing else is said.

use std::ffi::OsString;
use std::path::PathBuf;

/// No place for state could be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StateDirError {
    /// Neither root nor a user with a home directory.
    #[error(
        "no place to keep state: this user is not root, and neither XDG_STATE_HOME nor HOME names \
         an absolute path; set TAILWATER_STATE_DIR to a directory that this user may write to"
    )]
    NoHome,
    /// `TAILWATER_STATE_DIR` is not usable as it is written.
    #[error("TAILWATER_STATE_DIR must be an absolute path")]
    Relative,
}

/// The state directory of this process: `TAILWATER_STATE_DIR`, else `/var/lib/tailwater` for
/// root, else `$XDG_STATE_HOME/tailwater`, else `$HOME/.local/state/tailwater`. Nothing is
/// created; opening a store does that.
pub fn state_dir() -> Result<PathBuf, StateDirError> {
    state_dir_from(
        |name| std::env::var_os(name),
        rustix::process::geteuid().is_root(),
    )
}

/// As [`state_dir`], of a given environment. Empty variables count as unset; so does a relative
/// `XDG_STATE_HOME` (XDG Base Directory Specification 0.8).
pub fn state_dir_from(
    variable: impl Fn(&str) -> Option<OsString>,
    is_root: bool,
) -> Result<PathBuf, StateDirError> {
    let path = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let absolute = |name| path(name).filter(|p| p.is_absolute());
    match path("TAILWATER_STATE_DIR") {
        Some(dir) if dir.is_absolute() => return Ok(dir),
        Some(_) => return Err(StateDirError::Relative),
        None => {}
    }
    if is_root {
        return Ok(PathBuf::from("/var/lib/tailwater"));
    }
    let xdg = absolute("XDG_STATE_HOME").map(|dir| dir.join("tailwater"));
    let home = || absolute("HOME").map(|dir| dir.join(".local/state/tailwater"));
    xdg.or_else(home).ok_or(StateDirError::NoHome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_is_named_wins() {
        const OWN: &str = "TAILWATER_STATE_DIR";
        let of = |vars: &[(&str, &str)], root| {
            let find = |n: &str| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.into());
            state_dir_from(find, root).map(|p| p.to_string_lossy().into_owned())
        };
        let home = ("HOME", "/home/u");
        for (vars, root, want) in [
            (
                &[(OWN, "/s"), ("XDG_STATE_HOME", "/x"), home][..],
                true,
                Ok("/s"),
            ),
            (&[home], true, Ok("/var/lib/tailwater")),
            (
                &[(OWN, ""), ("XDG_STATE_HOME", "/x"), home],
                false,
                Ok("/x/tailwater"),
            ),
            (
                &[("XDG_STATE_HOME", "x"), home],
                false,
                Ok("/home/u/.local/state/tailwater"),
            ),
            (&[home], false, Ok("/home/u/.local/state/tailwater")),
            (&[], false, Err(StateDirError::NoHome)),
            (&[(OWN, "s"), home], false, Err(StateDirError::Relative)),
        ] {
            assert_eq!(of(vars, root), want.map(str::to_owned), "{vars:?}");
        }
    }
}
