//! The windows of grants of several modes, as processes tell them, and the judge of those.

/// One grant, from the moment its holder had it until the moment before it was given back.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// `exclusive`, `read`, `write`, or `TAKE/LIMIT`.
    pub(crate) mode: String,
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) token: u64,
}

impl Window {
    /// Reads a line `window MODE FROM UNTIL TOKEN`.
    pub(crate) fn parse(line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let ["window", mode, from, until, token] = words[..] else {
            panic!("the probe said: {line}");
        };
        let number = |word: &str| word.parse().unwrap();
        Self {
            mode: mode.to_owned(),
            from: number(from),
            until: number(until),
            token: number(token),
        }
    }

    fn permits(&self) -> (u64, u64) {
        let (take, limit) = self.mode.split_once('/').expect("a mode of permits");
        (take.parse().unwrap(), limit.parse().unwrap())
    }
}

/// Says what is wrong with the windows of one lock: a write overlaps no other, reads overlap only
/// reads, and the tokens of those that conflict grow strictly.
pub(crate) fn judge_writes(windows: &[Window]) -> Result<(), String> {
    let mut windows: Vec<_> = windows.iter().collect();
    windows.sort_by_key(|window| window.from);
    let (mut writes, mut reads) = (Latest::default(), Latest::default());
    for window in windows {
        let is_read = window.mode == "read";
        writes.check(window)?;
        if !is_read {
            reads.check(window)?;
        }
        let side = if is_read { &mut reads } else { &mut writes };
        side.add(window);
    }
    Ok(())
}

/// Of one side, the window with the latest end and that with the highest token so far.
#[derive(Default)]
struct Latest<'a> {
    end: Option<&'a Window>,
    token: Option<&'a Window>,
}

impl<'a> Latest<'a> {
    fn check(&self, window: &Window) -> Result<(), String> {
        if let Some(end) = self.end.filter(|end| end.until > window.from) {
            return Err(format!("they overlap: {end:?} and {window:?}"));
        }
        match self.token.filter(|token| token.token >= window.token) {
            Some(token) => Err(format!("the token did not grow: {token:?} and {window:?}")),
            None => Ok(()),
        }
    }

    fn add(&mut self, window: &'a Window) {
        if self.end.is_none_or(|end| end.until < window.until) {
            self.end = Some(window);
        }
        if self.token.is_none_or(|token| token.token < window.token) {
            self.token = Some(window);
        }
    }
}

/// Says whether more permits were out at once than the largest limit; else how many were, at most.
pub(crate) fn judge_permits(windows: &[Window]) -> Result<u64, String> {
    let limit = windows.iter().map(|window| window.permits().1).max();
    let mut changes = Vec::new();
    for window in windows {
        let take = window.permits().0.cast_signed();
        changes.push((window.from, take));
        changes.push((window.until, -take));
    }
    // Of one moment, what was given back comes first.
    changes.sort_unstable();
    let (mut out, mut most) = (0, 0);
    for (at, change) in changes {
        out += change;
        most = most.max(out);
        if out.cast_unsigned() > limit.unwrap_or(0) {
            return Err(format!("{out} permits were out at {at}"));
        }
    }
    Ok(most.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &[&str]) -> Vec<Window> {
        lines.iter().map(|line| Window::parse(line)).collect()
    }

    #[test]
    fn writes_stand_alone() {
        let fine = [
            "window write 0 9 1",
            "window read 9 20 2",
            "window read 10 12 3",
        ];
        assert_eq!(judge_writes(&all(&fine)), Ok(()));
        for wrong in [
            "window write 5 30 9",
            "window write 19 30 9",
            "window read 8 30 9",
            "window exclusive 11 30 9",
            "window write 20 30 3",
            "window read 20 30 1",
        ] {
            let lines = [&fine[..], &[wrong]].concat();
            assert!(judge_writes(&all(&lines)).is_err(), "{wrong}");
        }
        let late = [&fine[..], &["window write 20 30 4"]].concat();
        assert_eq!(judge_writes(&all(&late)), Ok(()));
    }

    #[test]
    fn permits_add_up() {
        let fine = ["window 2/3 0 9 0", "window 1/3 3 5 0", "window 3/3 9 10 0"];
        assert_eq!(judge_permits(&all(&fine)), Ok(3));
        let wrong = [&fine[..], &["window 1/2 4 6 0"]].concat();
        assert!(judge_permits(&all(&wrong)).is_err());
    }
}
