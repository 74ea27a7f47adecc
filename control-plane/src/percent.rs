//! Parts of URLs.

/// `%2F` and so on; what is none stays.
pub(crate) fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3);
        let byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        match (bytes[at], byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (other, _) => {
                out.push(other);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_all_else_stays() {
        assert_eq!(decoded("a%2Fb%20%c3%A9"), "a/b \u{e9}");
        assert_eq!(decoded("100%, %zz +%4"), "100%, %zz +%4");
    }
}
