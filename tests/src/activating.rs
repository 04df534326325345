//! The program `activating`, and bundles with much data for it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The program while it runs, and its lines. It is killed when this is dropped.
pub struct Activating {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Activating {
    /// Starts `program` with `arguments`.
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line. Blocks.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("the program ended").unwrap()
    }

    /// The numbers in the next line. Blocks.
    pub fn numbers(&mut self) -> Vec<u64> {
        let line = self.line();
        line.split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect()
    }
}

impl Drop for Activating {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files as one part of a bundle's archive: parts that are put one after the other, and at last
/// [`end`], are an archive.
pub fn part<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_path(name).unwrap();
        header.set_cksum();
        gzip.write_all(header.as_bytes()).unwrap();
        gzip.write_all(content).unwrap();
        let padding = content.len().next_multiple_of(512) - content.len();
        gzip.write_all(&vec![0; padding]).unwrap();
    }
    gzip.finish().unwrap()
}

/// What ends an archive.
pub fn end() -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&[0; 1024]).unwrap();
    gzip.finish().unwrap()
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// About `bytes` of JSON: users with names that are all different and, if `random`, hardly get
/// smaller by compression.
pub fn users(bytes: usize, random: bool, seed: u64) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut json = String::with_capacity(bytes + 256);
    json.push_str("{\"users\":[");
    let mut number = 0_u64;
    while json.len() < bytes {
        if number > 0 {
            json.push(',');
        }
        json.push_str("{\"id\":");
        json.push_str(&number.to_string());
        json.push_str(",\"name\":\"");
        json.push_str(&seed.to_string());
        json.push('-');
        json.push_str(&number.to_string());
        for _ in 0..if random { 100 } else { 0 } {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let letters = state
                .to_le_bytes()
                .map(|byte| LETTERS[usize::from(byte % 64)]);
            json.extend(letters.map(char::from));
        }
        json.push_str("\",\"roles\":[\"reader\",\"writer\"],\"active\":true}");
        number += 1;
    }
    json.push_str("]}");
    json
}
