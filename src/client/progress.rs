//! The progress bar of a transfer.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::cli::When;

/// Bar with a known end.
const BAR: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// Bar without one.
const COUNT: &str = "{msg} {spinner} {bytes} {bytes_per_sec}";

/// Draws per second: more than the eye sees, and costs nothing.
const HZ: u8 = 20;

/// A bar on standard error, or one that shows nothing.
pub fn bar(when: When, name: &str, bytes: Option<u64>) -> ProgressBar {
    let target = match when {
        When::Never => ProgressDrawTarget::hidden(),
        When::Always if !io::stderr().is_terminal() => {
            ProgressDrawTarget::term_like_with_hz(Box::new(Plain), HZ)
        }
        // Hides itself when standard error is no terminal.
        When::Auto | When::Always => ProgressDrawTarget::stderr_with_hz(HZ),
    };
    let bar = ProgressBar::with_draw_target(bytes, target).with_message(name.to_owned());
    set_style(&bar, bytes.is_some());
    bar
}

/// Gives a bar its end, once it is known.
pub fn set_length(bar: &ProgressBar, bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        bar.set_length(bytes);
    }
    set_style(bar, bytes.is_some());
}

fn set_style(bar: &ProgressBar, bounded: bool) {
    // A template that does not parse leaves the default style, which is fine too.
    if let Ok(style) = ProgressStyle::with_template(if bounded { BAR } else { COUNT }) {
        bar.set_style(style);
    }
}

/// Standard error that is no terminal, for those who ask for the bar all the same: one line, drawn
/// over with carriage returns.
#[derive(Debug)]
struct Plain;

impl TermLike for Plain {
    fn width(&self) -> u16 {
        80
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stderr().lock(), "{text}")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        write!(io::stderr().lock(), "{text}")
    }

    fn clear_line(&self) -> io::Result<()> {
        write!(io::stderr().lock(), "\r")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
