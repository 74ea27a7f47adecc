//! The screen: a head, the nodes, the files, the keys. What does not fit is left out, from the least
//! important column on.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::app::{App, Tab};
use super::numbers::{bytes, count, span};
use super::view::{FileRow, Mark, NodeRow};

/// Reasons that are shown at most.
const REASONS_MAX: usize = 3;
/// From so many rows on both tables are shown.
const BOTH_FROM: u16 = 18;
/// A name has at least so much room.
const NAME_WIDTH_MIN: u16 = 24;

/// How things may look.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    /// In colours.
    pub colours: bool,
    /// With characters that are not ASCII.
    pub unicode: bool,
}

impl Looks {
    /// As the environment wants: NO_COLOR, and the character set of the locale.
    pub fn of_environment() -> Looks {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        // The first of them that is set is the one that counts (locale(7)).
        let locale = set("LC_ALL")
            .or_else(|| set("LC_CTYPE"))
            .or_else(|| set("LANG"));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        Looks {
            colours: set("NO_COLOR").is_none(),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    /// A shape for each mark, so that colours are not needed.
    pub fn shape(self, mark: Mark) -> &'static str {
        match (mark, self.unicode) {
            (Mark::Good, true) => "●",
            (Mark::Waiting, true) => "◌",
            (Mark::Trouble, true) => "▲",
            (Mark::Down, true) => "✖",
            (Mark::Good, false) => "+",
            (Mark::Waiting, false) => ".",
            (Mark::Trouble, false) => "!",
            (Mark::Down, false) => "X",
        }
    }

    fn style(self, mark: Mark) -> Style {
        let colour = match mark {
            Mark::Good => Color::Green,
            Mark::Waiting => Color::Cyan,
            Mark::Trouble => Color::Yellow,
            Mark::Down => Color::Red,
        };
        match (self.colours, mark) {
            (true, _) => Style::new().fg(colour),
            (false, Mark::Good | Mark::Waiting) => Style::new(),
            (false, Mark::Trouble | Mark::Down) => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    fn marked(self, mark: Mark, words: &str) -> Span<'static> {
        let shape = self.shape(mark);
        let text = match words {
            "" => shape.to_owned(),
            words => format!("{shape} {words}"),
        };
        Span::styled(text, self.style(mark))
    }
}

/// A column beside the name.
struct Column<R> {
    head: &'static str,
    width: u16,
    /// Columns go in the order of this number, the largest first, where there is no room.
    rank: u8,
    cell: fn(&R) -> String,
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, app: &App, looks: &Looks) {
    let area = frame.area();
    let head = head(app, looks);
    let head_height = (head.len() as u16).min(area.height.saturating_sub(3));
    let parts = Layout::vertical([
        Constraint::Length(head_height),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [head_area, body, foot_area] = parts.areas(area);
    frame.render_widget(Paragraph::new(head), head_area);
    match (body.height >= BOTH_FROM, app.tab) {
        (true, _) => {
            let rows = app.view.nodes.len() as u16 + 2;
            let nodes = rows.min(body.height * 3 / 5);
            let [above, below] =
                Layout::vertical([Constraint::Length(nodes), Constraint::Min(1)]).areas(body);
            draw_nodes(frame, above, app, looks);
            draw_files(frame, below, app, looks);
        }
        (false, Tab::Nodes) => draw_nodes(frame, body, app, looks),
        (false, Tab::Files) => draw_files(frame, body, app, looks),
    }
    frame.render_widget(Paragraph::new(foot(app)), foot_area);
}

fn head(app: &App, looks: &Looks) -> Vec<Line<'static>> {
    let view = &app.view;
    let words = match app.mark() {
        Mark::Down => "no answer",
        Mark::Good => "ready",
        _ => "not ready",
    };
    let (number, when, by) = &view.generation;
    let mut first = vec![
        Span::raw("tailwater "),
        looks.marked(app.mark(), words),
        Span::raw(format!(
            "  up {}  generation {number} by {by} since {when}",
            span(view.uptime_seconds as f64)
        )),
    ];
    if app.paused {
        let paused = Style::new().add_modifier(Modifier::REVERSED);
        first.insert(2, Span::raw("  "));
        first.insert(3, Span::styled("PAUSED", paused));
    }
    let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |r| format!("{}/s", count(r)));
    let behind: u64 = view.nodes.iter().filter_map(|n| n.lag_bytes).sum();
    let mut lines = vec![
        Line::from(first),
        Line::from(format!(
            "in {}  out {}  behind {}",
            rate(view.rate_in()),
            rate(view.rate_out()),
            bytes(behind)
        )),
    ];
    let reasons = app.trouble.iter().chain(&view.reasons);
    let shown = reasons.take(REASONS_MAX);
    let mark = app.mark().max(Mark::Trouble);
    lines.extend(shown.map(|why| Line::from(looks.marked(mark, why))));
    lines
}

fn foot(app: &App) -> Line<'static> {
    let (other, order) = match app.tab {
        Tab::Nodes => ("files", app.node_order.name()),
        Tab::Files => ("nodes", app.file_order.name()),
    };
    let pause = if app.paused { "go on" } else { "pause" };
    let text = format!("q quit  tab {other}  s order: {order}  p {pause}  up/down row");
    Line::styled(text, Style::new().add_modifier(Modifier::DIM))
}

fn some(text: Option<String>) -> String {
    text.unwrap_or_default()
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, app: &App, looks: &Looks) {
    let columns: [Column<NodeRow>; 8] =
        [
            Column {
                head: "IN/s",
                width: 7,
                rank: 1,
                cell: |n| some(n.rate_in.map(count)),
            },
            Column {
                head: "OUT/s",
                width: 7,
                rank: 0,
                cell: |n| some(n.rate_out.map(count)),
            },
            Column {
                head: "LAG",
                width: 9,
                rank: 2,
                cell: |n| some(n.lag_bytes.map(bytes)),
            },
            Column {
                head: "BEHIND",
                width: 7,
                rank: 3,
                cell: |n| some(n.lag_seconds.map(span)),
            },
            Column {
                head: "QUEUE",
                width: 11,
                rank: 4,
                cell: |n| {
                    some(n.queue.map(|(size, room)| {
                        format!("{}/{}", count(size as f64), count(room as f64))
                    }))
                },
            },
            Column {
                head: "FLIGHT",
                width: 7,
                rank: 6,
                cell: |n| some(n.in_flight.map(|n| count(n as f64))),
            },
            Column {
                head: "ERRORS",
                width: 7,
                rank: 5,
                cell: |n| some(n.errors.map(|n| count(n as f64))),
            },
            Column {
                head: "ERR/s",
                width: 7,
                rank: 7,
                cell: |n| some(n.error_rate.map(count)),
            },
        ];
    let name = |n: &NodeRow, width: usize| {
        let whole = format!("{} ({})", n.key, n.state);
        let words = match n.mark != Mark::Good && fits(&whole, width) {
            true => whole,
            false => beginning_of(&n.key, width),
        };
        (n.mark, words)
    };
    let rows = app.nodes();
    let place = Place {
        area,
        head: "NODE",
        row: app.rows[0],
        active: app.tab == Tab::Nodes,
    };
    table(frame, &place, &rows, &columns, name, looks);
}

fn draw_files(frame: &mut Frame<'_>, area: Rect, app: &App, looks: &Looks) {
    let columns: [Column<FileRow>; 4] = [
        Column {
            head: "LAG",
            width: 9,
            rank: 0,
            cell: |f| bytes(f.lag_bytes),
        },
        Column {
            head: "BEHIND",
            width: 7,
            rank: 1,
            cell: |f| some(f.lag_seconds.map(span)),
        },
        Column {
            head: "SIZE",
            width: 9,
            rank: 2,
            cell: |f| bytes(f.size),
        },
        Column {
            head: "STATE",
            width: 12,
            rank: 3,
            cell: |f| f.state.clone(),
        },
    ];
    let name = |f: &FileRow, width: usize| (f.mark, end_of(&f.path, width));
    let rows = app.files();
    let place = Place {
        area,
        head: "FILE",
        row: app.rows[1],
        active: app.tab == Tab::Files,
    };
    table(frame, &place, &rows, &columns, name, looks);
}

/// Where a table is, and how it stands.
struct Place {
    area: Rect,
    /// Over the names.
    head: &'static str,
    /// The row that is looked at.
    row: usize,
    /// Keys are about it.
    active: bool,
}

fn table<R>(
    frame: &mut Frame<'_>,
    place: &Place,
    rows: &[&R],
    columns: &[Column<R>],
    name: impl Fn(&R, usize) -> (Mark, String),
    looks: &Looks,
) {
    let room = place.area.width.saturating_sub(NAME_WIDTH_MIN + 2);
    let mut by_rank: Vec<&Column<R>> = columns.iter().collect();
    by_rank.sort_by_key(|c| c.rank);
    let mut used = 0;
    by_rank.retain(|c| {
        let fits = used + c.width < room;
        used += if fits { c.width + 1 } else { 0 };
        fits
    });
    let is_shown = |c: &&Column<R>| by_rank.iter().any(|s| s.rank == c.rank);
    let shown: Vec<&Column<R>> = columns.iter().filter(is_shown).collect();
    let name_width = place.area.width.saturating_sub(used + 2);
    let right = |text: String| Cell::new(Text::from(text).right_aligned());
    let line = |row: &R| {
        let (mark, words) = name(row, usize::from(name_width));
        let first = [Cell::new(looks.marked(mark, "")), Cell::new(words)];
        let rest = shown.iter().map(|c| right((c.cell)(row)));
        Row::new(first.into_iter().chain(rest))
    };
    let heads = [Cell::new(""), Cell::new(place.head)];
    let heads = heads
        .into_iter()
        .chain(shown.iter().map(|c| right(c.head.to_owned())));
    let head_style = match place.active {
        true => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
        false => Style::new().add_modifier(Modifier::BOLD),
    };
    let widths = [Constraint::Length(1), Constraint::Length(name_width)];
    let widths = widths
        .into_iter()
        .chain(shown.iter().map(|c| Constraint::Length(c.width)));
    let table = Table::new(rows.iter().map(|row| line(row)), widths)
        .header(Row::new(heads).style(head_style))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let selected = (place.active && !rows.is_empty()).then_some(place.row);
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, place.area, &mut state);
}

fn fits(text: &str, width: usize) -> bool {
    Line::from(text).width() <= width
}

/// The end of a text that is too long: it says more of a path than the beginning.
fn end_of(text: &str, width: usize) -> String {
    if fits(text, width) {
        return text.to_owned();
    }
    let mut rest = text.chars();
    while !fits(rest.as_str(), width.saturating_sub(2)) && rest.next().is_some() {}
    format!("..{}", rest.as_str())
}

/// The beginning of a text that is too long: it says more of a node than the end.
fn beginning_of(text: &str, width: usize) -> String {
    if fits(text, width) {
        return text.to_owned();
    }
    let mut rest = text.chars();
    while !fits(rest.as_str(), width.saturating_sub(2)) && rest.next_back().is_some() {}
    format!("{}..", rest.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::app::Key;
    use super::super::view::tests::look_at;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Instant;

    const PLAIN: Looks = Looks {
        colours: false,
        unicode: true,
    };

    fn app() -> App {
        let start = Instant::now();
        let mut app = App::new(look_at(start, 0, 1_000));
        app.take(Ok(look_at(start, 2, 25_000)));
        app
    }

    fn drawn(app: &App, looks: &Looks, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app, looks)).unwrap();
        terminal
    }

    fn screen(app: &App, looks: &Looks, width: u16, height: u16) -> String {
        let terminal = drawn(app, looks, width, height);
        let buffer = terminal.backend().buffer();
        let line = |y| {
            let cells = (0..width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned() + "\n"
        };
        (0..height).map(line).collect()
    }

    /// As the file beside the code says; with TAILWATER_BLESS set it is written.
    fn golden(name: &str, got: &str) {
        let path = format!(
            "{}/src/commands/top/golden/{name}",
            env!("CARGO_MANIFEST_DIR")
        );
        if std::env::var_os("TAILWATER_BLESS").is_some() {
            std::fs::write(&path, got).unwrap();
        }
        let want = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(got, want, "{path}");
    }

    #[test]
    fn a_wide_screen_shows_everything() {
        golden("wide.txt", &screen(&app(), &PLAIN, 120, 30));
    }

    /// Guarantee: what is most important is there in a small window, too, and nothing panics in any.
    #[test]
    fn a_small_screen_shows_one_table_and_what_matters_of_it() {
        let mut app = app();
        golden("narrow.txt", &screen(&app, &PLAIN, 50, 14));
        app.press(Key::Tab);
        app.press(Key::Sort);
        app.press(Key::Pause);
        let ascii = Looks {
            unicode: false,
            ..PLAIN
        };
        golden("narrow-files.txt", &screen(&app, &ascii, 50, 14));
        for width in [1, 2, 3, 10, 27, 80, 300] {
            for height in [1, 2, 3, 4, 5, 10, 70] {
                drawn(&app, &PLAIN, width, height);
            }
        }
    }

    /// Guarantee: without colours there are none, and each mark has a shape of its own either way.
    #[test]
    fn colours_are_never_needed() {
        let colours = |looks: &Looks| {
            let terminal = drawn(&app(), looks, 120, 30);
            let cells = terminal.backend().buffer().content().iter();
            cells
                .filter(|c| c.fg != Color::Reset || c.bg != Color::Reset)
                .count()
        };
        assert_eq!(colours(&PLAIN), 0);
        assert!(
            colours(&Looks {
                colours: true,
                ..PLAIN
            }) > 0
        );
        for unicode in [true, false] {
            let looks = Looks {
                colours: false,
                unicode,
            };
            let marks = [Mark::Good, Mark::Waiting, Mark::Trouble, Mark::Down];
            let shapes: std::collections::BTreeSet<_> = marks.map(|m| looks.shape(m)).into();
            assert_eq!(shapes.len(), marks.len());
            assert!(unicode || shapes.iter().all(|s| s.is_ascii()));
        }
    }

    #[test]
    fn an_agent_that_does_not_answer_is_said_at_the_top() {
        let mut app = app();
        app.take(Err("no agent at the socket /run/a.sock".to_owned()));
        let screen = screen(&app, &PLAIN, 100, 20);
        let first: Vec<&str> = screen.lines().take(3).collect();
        assert!(first[0].starts_with("tailwater ✖ no answer"), "{screen}");
        assert_eq!(first[2], "✖ no agent at the socket /run/a.sock");
        assert!(
            screen.contains("receiver file_log (logs)"),
            "what was known stays\n{screen}"
        );
    }

    #[test]
    fn the_end_of_a_long_name_is_what_stays() {
        assert_eq!(end_of("/var/log/app.log", 16), "/var/log/app.log");
        assert_eq!(end_of("/var/log/app.log", 10), "../app.log");
        assert_eq!(end_of("/日本/a.log", 9), "../a.log", "two columns each");
        assert_eq!(
            beginning_of("receiver file_log (logs)", 13),
            "receiver fi.."
        );
        assert_eq!(beginning_of("日本語", 5), "日..");
    }
}
