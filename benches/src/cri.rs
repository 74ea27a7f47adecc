//! The shortest path through container lines that is still right for the generated ones: what the
//! floor parses with. It is not the agent's parser, which accepts every form the runtimes write.

/// A line of a container runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// ns since the epoch.
    pub time: i64,
    /// Written to standard error.
    pub stderr: bool,
    /// The message ends here (`F`); otherwise it goes on in the next record (`P`).
    pub full: bool,
    /// The text.
    pub message: &'a [u8],
}

/// Remembers the last second, which consecutive lines mostly share.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    second: [u8; 19],
    second_ns: i64,
}

impl Parser {
    /// Parses `2024-01-01T00:00:00.123456789Z stdout F message`; `None` for any other form.
    #[inline(always)]
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        let head: &[u8; 41] = line.first_chunk()?;
        let second: &[u8; 19] = head.first_chunk()?;
        if *second != self.second {
            self.second_ns = seconds(second)? * 1_000_000_000;
            self.second = *second;
        }
        if head[19] != b'.' || head[29] != b'Z' {
            return None;
        }
        let mut ns = 0;
        for b in &head[20..29] {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            ns = ns * 10 + i64::from(digit);
        }
        let stderr = match &head[30..38] {
            b" stdout " => false,
            b" stderr " => true,
            _ => return None,
        };
        let full = match &head[38..40] {
            b"F " => true,
            b"P " => false,
            _ => return None,
        };
        // The generated messages are never empty, so 41 bytes are always there.
        Some(Line {
            time: self.second_ns + ns,
            stderr,
            full,
            message: &line[40..],
        })
    }
}

fn seconds(t: &[u8; 19]) -> Option<i64> {
    let number = |from: usize, to: usize| {
        t[from..to].iter().try_fold(0i64, |n, b| {
            let digit = b.wrapping_sub(b'0');
            (digit <= 9).then_some(n * 10 + i64::from(digit))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Days since 1970-01-01 in the Gregorian calendar; years begin in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    let days = y * 365 + leap_days + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_lines_are_read_and_other_forms_are_not() {
        let mut p = Parser::default();
        let line = p
            .parse(b"2024-01-01T00:00:00.000000007Z stderr P {x")
            .expect("a line");
        let want = crate::content::FIRST_SECOND as i64 * 1_000_000_000 + 7;
        assert_eq!(
            line,
            Line {
                time: want,
                stderr: true,
                full: false,
                message: b"{x"
            }
        );
        let next = p.parse(b"2024-03-01T00:00:01.5Z stdout F x").is_none();
        assert!(
            next && p
                .parse(b"2024-01-01T00:00:00.000000007Z stdin  F abc")
                .is_none()
        );
        let later = p
            .parse(b"2024-03-01T00:00:01.000000000Z stdout F x")
            .expect("a line");
        assert_eq!(later.time, want - 7 + (60 * 86_400 + 1) * 1_000_000_000);
    }
}
