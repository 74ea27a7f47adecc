//! The receiver: what becomes of pushes, on real sockets where that matters.

mod forms;
mod sockets;

/// An entry: seconds, nanoseconds, line, metadata.
pub type Entry<'t> = (i64, i64, &'t [u8], &'t [(&'t str, &'t str)]);

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A push in protobuf, written by hand from the definition of the messages.
pub fn proto(streams: &[(&str, &[Entry<'_>])]) -> Vec<u8> {
    let mut push = Vec::new();
    for (labels, entries) in streams {
        let mut stream = Vec::new();
        field(&mut stream, 1, labels.as_bytes());
        for (seconds, nanos, line, metadata) in *entries {
            let (mut entry, mut time) = (Vec::new(), vec![0x08]);
            varint(&mut time, *seconds as u64);
            time.push(0x10);
            varint(&mut time, *nanos as u64);
            field(&mut entry, 1, &time);
            field(&mut entry, 2, line);
            for (name, value) in *metadata {
                let mut pair = Vec::new();
                field(&mut pair, 1, name.as_bytes());
                field(&mut pair, 2, value.as_bytes());
                field(&mut entry, 3, &pair);
            }
            field(&mut stream, 2, &entry);
        }
        // The hash of the stream, which clients may send.
        stream.extend_from_slice(&[0x18, 0x07]);
        field(&mut push, 1, &stream);
    }
    push
}

/// One block of snappy.
pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}
