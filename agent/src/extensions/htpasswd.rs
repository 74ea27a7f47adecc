//! Stored passwords, as Apache's `htpasswd` writes them: `name:hash`, one a line.
//!
//! Hashes: bcrypt (`$2y$`), Apache's MD5 (`$apr1$`, the algorithm of Poul-Henning Kamp's `crypt`),
//! SHA-crypt (`$5$`, `$6$`), `{SHA}`, `{SSHA}` (RFC 2307), and plain text.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};
use sha_crypt::{PasswordVerifier, ShaCrypt};
use sha1::Sha1;
use subtle::ConstantTimeEq;

/// Users and how their passwords are stored.
#[derive(Default)]
pub struct Users(HashMap<String, Stored>);

enum Stored {
    Bcrypt(String),
    Apr1 {
        salt: String,
        digest: String,
    },
    ShaCrypt(String),
    /// `{SHA}` without a salt, `{SSHA}` with one.
    Sha1 {
        digest: Vec<u8>,
        salt: Vec<u8>,
    },
    Plain(String),
}

impl Users {
    /// Reads `text`. The mistakes name lines, counted from 1, and show no hash. Of a name that is there
    /// twice the last line counts.
    pub fn read(text: &str) -> Result<Users, Vec<String>> {
        let (mut users, mut mistakes) = (HashMap::new(), Vec::new());
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let stored = match line.split_once(':') {
                Some((name, hash)) if !name.is_empty() && !hash.is_empty() => {
                    Stored::read(hash).map(|stored| (name.to_owned(), stored))
                }
                _ => Err("must be name:password".to_owned()),
            };
            match stored {
                Ok((name, stored)) => {
                    users.insert(name, stored);
                }
                Err(problem) => mistakes.push(format!("line {}: {problem}", i + 1)),
            }
        }
        if mistakes.is_empty() {
            Ok(Users(users))
        } else {
            Err(mistakes)
        }
    }

    /// Whether `password` is the one of `name`. Slow where hashes are meant to be.
    pub fn verify(&self, name: &str, password: &str) -> bool {
        self.0.get(name).is_some_and(|s| s.verify(password))
    }
}

impl Stored {
    fn read(hash: &str) -> Result<Stored, String> {
        let decoded = |text: &str| {
            let bytes = BASE64_STANDARD.decode(text).ok();
            bytes
                .filter(|b| b.len() >= Sha1::output_size())
                .ok_or("the digest is no base64 of a SHA-1".to_owned())
        };
        if let Some(digest) = hash.strip_prefix("{SHA}") {
            let digest = decoded(digest)?;
            let salt = Vec::new();
            return Ok(Stored::Sha1 { digest, salt });
        }
        if let Some(digest) = hash.strip_prefix("{SSHA}") {
            let mut digest = decoded(digest)?;
            let salt = digest.split_off(Sha1::output_size());
            return Ok(Stored::Sha1 { digest, salt });
        }
        if let Some(rest) = hash.strip_prefix("$apr1$") {
            let (salt, digest) = rest.split_once('$').ok_or("the hash has no digest")?;
            return Ok(Stored::Apr1 {
                salt: salt.to_owned(),
                digest: digest.to_owned(),
            });
        }
        match hash.get(..3) {
            Some("$2a" | "$2b" | "$2x" | "$2y") => {
                let form = hash.parse::<bcrypt::HashParts>();
                form.map(|_| Stored::Bcrypt(hash.to_owned()))
                    .map_err(|_| "no bcrypt hash".to_owned())
            }
            Some("$5$" | "$6$") => Ok(Stored::ShaCrypt(hash.to_owned())),
            _ if hash.starts_with('$') => {
                Err("a kind of hash that is not known; `htpasswd -B` makes one that is".to_owned())
            }
            _ => Ok(Stored::Plain(hash.to_owned())),
        }
    }

    fn verify(&self, password: &str) -> bool {
        match self {
            Stored::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Stored::ShaCrypt(hash) => {
                let hash: &str = hash;
                let hasher = ShaCrypt::default();
                hasher.verify_password(password.as_bytes(), hash).is_ok()
            }
            Stored::Apr1 { salt, digest } => {
                let made = apr1(password.as_bytes(), salt.as_bytes());
                same(made.as_bytes(), digest.as_bytes())
            }
            Stored::Sha1 { digest, salt } => {
                let made = Sha1::new().chain_update(password).chain_update(salt);
                same(&made.finalize(), digest)
            }
            Stored::Plain(plain) => same(password.as_bytes(), plain.as_bytes()),
        }
    }
}

/// Equality that takes as long for a wrong text as for a right one of the same length.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The digest of Apache's MD5 hash, in its alphabet: a thousand rounds over the password, the salt
/// (of which eight characters count) and what came before.
fn apr1(password: &[u8], salt: &[u8]) -> String {
    let salt = &salt[..salt.len().min(8)];
    let inner = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut first = Md5::new()
        .chain_update(password)
        .chain_update(b"$apr1$")
        .chain_update(salt);
    for at in (0..password.len()).step_by(16) {
        first.update(&inner[..(password.len() - at).min(16)]);
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(match bits & 1 {
            1 => &[0],
            _ => &password[..1],
        });
        bits >>= 1;
    }
    let mut digest = first.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        match round & 1 {
            1 => next.update(password),
            _ => next.update(digest),
        }
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        match round & 1 {
            1 => next.update(digest),
            _ => next.update(password),
        }
        digest = next.finalize();
    }
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(22);
    let mut put = |mut value: u32, characters: usize| {
        for _ in 0..characters {
            text.push(char::from(ALPHABET[value as usize & 63]));
            value >>= 6;
        }
    };
    for i in 0..5 {
        let third = if i == 4 { 5 } else { i + 12 };
        let byte = |at: usize| u32::from(digest[at]);
        put(byte(i) << 16 | byte(i + 6) << 8 | byte(third), 4);
    }
    put(u32::from(digest[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the password `s3cret`, made by the system's `crypt`, OpenSSL's `passwd` and Python's hashes.
    const HASHES: [&str; 8] = [
        "$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK",
        "$apr1$saltsalt$64vPg1.FPS6FtcYJ7Ti1V.",
        "$apr1$x$k.ZfYk1SGo411Oecc/bsb1",
        "$5$abcdefgh$OcHWp0Vj4l19dnE2g4tHD4hbItEZgO0bjRV6LjwCLoA",
        "$6$abcdefgh$Z7KfoKnKTSZrzo5VZ0YubGLQOj9ov6sHo9TmE3zIU/LHKhpE30zCnZ0mcIXYf9r9rQ4DYaXoxAFSPFlcWdxjB.",
        "{SHA}/vNB+F2HQ559kaLUZbmHHvZrXpg=",
        "{SSHA}Kd6WTgXUWO7I5P9fPmJ57jB1K5NwZXBwZXI=",
        "s3cret",
    ];

    /// Guarantee: each form that is in use is understood.
    #[test]
    fn each_kind_of_hash_is_verified() {
        let text: String = HASHES
            .iter()
            .enumerate()
            .map(|(i, hash)| format!("user{i}:{hash}\n"))
            .collect();
        let users =
            Users::read(&format!("# comment\n\n{text}")).unwrap_or_else(|e| panic!("{e:?}"));
        for (i, hash) in HASHES.iter().enumerate() {
            let name = format!("user{i}");
            assert!(users.verify(&name, "s3cret"), "{hash}");
            assert!(!users.verify(&name, "s3cretx"), "{hash}");
            assert!(!users.verify(&name, ""), "{hash}");
        }
        assert!(!users.verify("nobody", "s3cret"));
    }

    #[test]
    fn mistakes_name_the_line_and_no_secret() {
        let text = "a:x\nnothing\n:x\nb:$9$abc\nc:{SHA}short\nd:$apr1$salt\ne:$2y$bad";
        let mistakes = Users::read(text).err().unwrap();
        let lines: Vec<_> = mistakes
            .iter()
            .map(|m| m.split(':').next().unwrap())
            .collect();
        assert_eq!(
            lines,
            ["line 2", "line 3", "line 4", "line 5", "line 6", "line 7"]
        );
        assert!(!mistakes.concat().contains("abc"));
    }
}
