use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;

/// A console in memory, for tests. Clones are the same console.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Takes the complete lines that were written so far.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        let mut bytes = self.0.lock();
        let end = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines: Vec<u8> = bytes.drain(..end).collect();
        String::from_utf8_lossy(&lines)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
