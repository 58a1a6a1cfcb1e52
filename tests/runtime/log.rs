//! Log lines, for tests to look at.

use std::sync::{Arc, Mutex};

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Collects log lines.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn install(level: Level) -> Self {
        Self::install_with(level, FmtSpan::NONE)
    }

    /// Collects lines for what becomes of spans, too.
    pub(crate) fn install_with(level: Level, spans: FmtSpan) -> Self {
        let log = Self::default();
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_span_events(spans)
            .with_ansi(false)
            .with_writer(log.clone())
            .init();
        log
    }

    pub(crate) fn lines_with(&self, text: &str) -> usize {
        let bytes = self.0.lock().expect("no panic");
        String::from_utf8_lossy(&bytes)
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }
}

impl Log {
    pub(crate) fn lines_that_begin_with(&self, text: &str) -> usize {
        let bytes = self.0.lock().expect("no panic");
        let log = String::from_utf8_lossy(&bytes);
        log.lines().filter(|line| line.starts_with(text)).count()
    }

    /// Returns the last line with this text.
    pub(crate) fn line_with(&self, text: &str) -> String {
        let bytes = self.0.lock().expect("no panic");
        let log = String::from_utf8_lossy(&bytes);
        let line = log.lines().rfind(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no `{text}` in {log}"))
            .to_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
