//! Measures work with readers, writers and permits.

use std::iter::{once, repeat_n};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::bench::{Bench, Note, TASKS};
use crate::locks::Way;
use crate::table::median;
use crate::usage::{Crowd, NowAndThen};

/// The processes that read beside a writer, and the tasks of each.
pub(crate) const READING: usize = 4;
pub(crate) const READERS_EACH: u64 = 8;
/// How long one of them reads.
const READS_FOR: Duration = Duration::from_millis(5);
/// The pause of the writer.
const PAUSE: Duration = Duration::from_millis(20);

impl Bench {
    /// Measures many tasks that read one name for a millisecond each.
    pub(crate) fn together(&mut self, way: Way) -> f64 {
        let number = self.numbers(1).start;
        let sections = self.scale.sections * 10;
        // Connects.
        self.read_together(way, number, 1);
        let before = self.sent(way.kind);
        let took = self.read_together(way, number, sections);
        let reads = (TASKS * sections) as f64;
        let requests = (self.sent(way.kind) - before) / reads;
        self.noted.insert((Note::RequestsTogether, way), requests);
        reads / took.as_secs_f64()
    }

    fn read_together(&self, way: Way, number: u64, sections: u64) -> Duration {
        let crowd = Crowd {
            sections,
            at_once: way.kind.at_once(),
            hold: Duration::from_millis(1),
        };
        let numbers = repeat_n(number, TASKS as usize);
        let reading = self.clients.with_locks(way, numbers, crowd);
        self.runtime.block_on(reading)
    }

    /// Returns the requests of each read in the course of that.
    pub(crate) fn requests_together(&mut self, way: Way) -> f64 {
        self.note(Note::RequestsTogether, way, Self::together)
    }

    /// Measures how long a writer waits, in milliseconds, while other processes read without a
    /// pause.
    pub(crate) fn writers_wait(&mut self, way: Way) -> f64 {
        let number = self.numbers(1).start;
        let time = self.scale.reading;
        let (hold, reading) = (READS_FOR.as_millis(), time.as_millis());
        let (kind, retry) = (way.kind.its_readers().name(), way.retry.as_millis());
        // Connects.
        let connect = NowAndThen {
            pause: Duration::from_millis(1),
            time: PAUSE,
        };
        let connecting = self.clients.with_locks(way, once(number), connect);
        self.runtime.block_on(connecting);
        let processes = &mut self.processes[..READING];
        for process in processes.iter_mut() {
            let tasks = READERS_EACH;
            process.tell(&[
                &"incessant",
                &kind,
                &retry,
                &number,
                &tasks,
                &hold,
                &reading,
            ]);
        }
        // Done before those who read have.
        let writing = NowAndThen {
            pause: PAUSE,
            time: time * 9 / 10,
        };
        let waits = self.clients.with_locks(way, once(number), writing);
        let waits = self.runtime.block_on(waits);
        let reads: f64 = processes
            .iter_mut()
            .map(|process| process.answer()[0])
            .sum();
        let millis: Vec<_> = waits.iter().map(|wait| wait.as_secs_f64() * 1e3).collect();
        let longest = millis.iter().copied().fold(0.0, f64::max);
        self.noted.insert((Note::LongestWait, way), longest);
        let rate = reads / time.as_secs_f64();
        self.noted.insert((Note::ReadsBeside, way), rate);
        median(millis.into_iter())
    }

    /// Returns the longest wait in the course of that.
    pub(crate) fn longest_wait(&mut self, way: Way) -> f64 {
        self.note(Note::LongestWait, way, Self::writers_wait)
    }

    /// Returns the reads a second in the course of that.
    pub(crate) fn reads_beside(&mut self, way: Way) -> f64 {
        self.note(Note::ReadsBeside, way, Self::writers_wait)
    }

    /// Returns how many permits are out at most while many processes compete, as the server counts
    /// them.
    pub(crate) fn permits_out(&mut self, way: Way) -> f64 {
        let number = self.numbers(1).start;
        let key = way.kind.semaphore(number);
        let mut raw = self.runtime.block_on(self.clients.raw()).clone();
        let most = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&most);
        let looking = self.runtime.spawn(async move {
            loop {
                seen.fetch_max(raw.members(&key).await, Ordering::Relaxed);
            }
        });
        self.crowd_on(way, number, self.scale.sections * 5);
        looking.abort();
        f64::from(most.load(Ordering::Relaxed))
    }
}
