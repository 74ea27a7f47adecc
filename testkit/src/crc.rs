//! CRC-32 (ISO-HDLC, the one of gzip: reflected polynomial 0xEDB88320), eight bytes a step.
//!
//! Our own because messages are short: a compression library's checksum costs more to set up
//! than to compute over a line. The table method is "slicing-by-8" (Kounavis and Berry, 2005).

const TABLES: [[u32; 256]; 8] = tables();

/// `TABLES[k][b]` is the checksum register after byte `b` and `k` zero bytes.
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = register & 1;
            register = (register >> 1) ^ (0xedb8_8320 * carry);
            bit += 1;
        }
        tables[0][byte] = register;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// Continues a checksum with more bytes; 0 begins one.
pub(crate) fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    let mut register = !crc;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_le_bytes(word) ^ u64::from(register);
        register = 0;
        for (place, table) in TABLES.iter().rev().enumerate() {
            register ^= table[(word >> (8 * place)) as usize & 0xff];
        }
    }
    for byte in chunks.remainder() {
        register = (register >> 8) ^ TABLES[0][((register ^ u32::from(*byte)) & 0xff) as usize];
    }
    !register
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_and_a_library_agree() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        let mut rng = crate::rng::Rng::new(2);
        let bytes: Vec<u8> = (0..300).map(|_| rng.next_u64() as u8).collect();
        for len in 0..bytes.len() {
            let mut library = flate2::Crc::new();
            library.update(&bytes[..len]);
            assert_eq!(crc32(0, &bytes[..len]), library.sum(), "{len}");
            let (a, b) = bytes[..len].split_at(len / 3);
            assert_eq!(crc32(crc32(0, a), b), library.sum(), "{len} in two pieces");
        }
    }
}
