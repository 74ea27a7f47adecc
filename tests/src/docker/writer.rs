//! What containers of tests run: `writer NAME LINES PAUSE_US STAY_MS` prints lines `NAME NUMBER UNIX_NS`, and
//! stays for a while after them.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args[i].parse::<u64>().expect("a number");
    let (lines, pause, stay) = (number(1), number(2), number(3));
    let mut out = std::io::stdout().lock();
    for n in 0..lines {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        writeln!(out, "{} {n} {}", args[0], now.as_nanos()).expect("written");
        out.flush().expect("written");
        if pause > 0 {
            std::thread::sleep(Duration::from_micros(pause));
        }
    }
    std::thread::sleep(Duration::from_millis(stay));
}
