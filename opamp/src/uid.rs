//! The name of an agent's instance: a UUID.

use std::fmt;
use std::str::FromStr;

/// 16 bytes, best of UUID version 7 (RFC 9562, 5.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceUid(pub [u8; 16]);

impl InstanceUid {
    /// A new one of version 7: made at `unix_ms`, and `random`.
    pub fn v7(unix_ms: u64, random: [u8; 10]) -> InstanceUid {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = 0x70 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        InstanceUid(bytes)
    }

    /// The one that these bytes are; none unless they are 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<InstanceUid> {
        bytes.try_into().ok().map(InstanceUid)
    }
}

impl fmt::Display for InstanceUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for InstanceUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The canonical form: 32 hexadecimal digits with hyphens in their places.
impl FromStr for InstanceUid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<InstanceUid, &'static str> {
        const WRONG: &str = "must be a UUID such as 018f4b1e-7d2a-7c3b-9f10-2a3b4c5d6e7f";
        let hyphens = [8, 13, 18, 23];
        let placed = hyphens
            .iter()
            .all(|i| text.as_bytes().get(*i) == Some(&b'-'));
        if text.len() != 36 || !placed {
            return Err(WRONG);
        }
        let digits: Vec<u32> = text
            .chars()
            .filter(|c| *c != '-')
            .map(|c| c.to_digit(16).ok_or(WRONG))
            .collect::<Result<_, _>>()?;
        if digits.len() != 32 {
            return Err(WRONG);
        }
        let bytes: Vec<u8> = digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect();
        InstanceUid::from_bytes(&bytes).ok_or(WRONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_has_its_version_and_is_read_as_it_is_written() {
        let uid = InstanceUid::v7(0x018f_4b1e_7d2a, [0xff; 10]);
        assert_eq!(uid.to_string(), "018f4b1e-7d2a-7fff-bfff-ffffffffffff");
        assert_eq!(uid.to_string().parse(), Ok(uid));
        assert_eq!(InstanceUid::from_bytes(&uid.0), Some(uid));
        assert_eq!(InstanceUid::from_bytes(&uid.0[1..]), None);
        for wrong in [
            "",
            "018f4b1e7d2a7fffbfffffffffffffff",
            "018f4b1e-7d2a-7fff-bfff-fffffffffff",
            "018f4b1e-7d2a-7fff-bfff-fffffffffffg",
            "018f4b1e-7d2a-7fff-bfff-ffffff-fffff",
            "018f4b1e-7d2a-7fff-bfff-ffffffffffé",
        ] {
            assert!(wrong.parse::<InstanceUid>().is_err(), "{wrong}");
        }
    }
}
