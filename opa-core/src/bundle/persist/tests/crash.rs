//! A crash of the machine after each step, over a disk that keeps no more than it has to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::save::{Files, load, save};
use crate::bundle::ArchiveBytes;

const ORIGIN: &str = "origin";
const OLD: (&[u8], &str) = (b"the old archive", "old");
const NEW: (&[u8], &str) = (b"another archive, longer", "new");

/// Files, and what of them is safe.
#[derive(Default)]
struct Disk {
    files: RefCell<Vec<(Vec<u8>, bool)>>,
    /// Numbers of files by name, as the process sees them.
    names: RefCell<BTreeMap<String, usize>>,
    /// The same as of the last time the folder was synced.
    safe: RefCell<BTreeMap<String, usize>>,
    /// What happened to names since, in order: a name has this file, or none.
    changes: RefCell<Vec<(String, Option<usize>)>>,
    steps_left: Cell<usize>,
    skips: Skips,
}

/// A barrier that is left out.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
enum Skips {
    #[default]
    Nothing,
    FileSync,
    FolderSync,
}

impl Disk {
    fn step(&self) -> io::Result<()> {
        let left = self.steps_left.get();
        if left == 0 {
            return Err(io::Error::other("crashed"));
        }
        self.steps_left.set(left - 1);
        Ok(())
    }

    fn change(&self, name: &str, file: Option<usize>) {
        let mut names = self.names.borrow_mut();
        match file {
            Some(file) => names.insert(name.to_owned(), file),
            None => names.remove(name),
        };
        self.changes.borrow_mut().push((name.to_owned(), file));
    }

    /// What the next start finds: of the changes that were not synced any may be there, and of a
    /// file that was not synced any part.
    fn after_crash(&self, random: &mut StdRng) -> Self {
        let mut names = self.safe.borrow().clone();
        for (name, file) in self.changes.borrow().iter() {
            if random.random() {
                match file {
                    Some(file) => names.insert(name.clone(), *file),
                    None => names.remove(name),
                };
            }
        }
        let mut files = self.files.borrow().clone();
        for (bytes, synced) in &mut files {
            if !*synced {
                bytes.truncate(random.random_range(0..=bytes.len()));
            }
            *synced = true;
        }
        let disk = Self::default();
        disk.files.replace(files);
        disk.safe.replace(names.clone());
        disk.names.replace(names);
        disk
    }
}

impl Files for Disk {
    fn read(&self, name: &str, _: u64) -> io::Result<Option<Vec<u8>>> {
        let number = self.names.borrow().get(name).copied();
        Ok(number.map(|number| self.files.borrow()[number].0.clone()))
    }

    fn write(&self, name: &str, pieces: &mut dyn Iterator<Item = &[u8]>) -> io::Result<()> {
        self.step()?;
        let bytes = pieces.collect::<Vec<_>>().concat();
        let number = self.files.borrow().len();
        self.files.borrow_mut().push((bytes, false));
        self.change(name, Some(number));
        Ok(())
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        self.step()?;
        let number = self.names.borrow()[name];
        self.files.borrow_mut()[number].1 |= self.skips != Skips::FileSync;
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let number = self.names.borrow()[from];
        self.change(to, Some(number));
        self.change(from, None);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.step()?;
        if self.skips != Skips::FolderSync {
            self.safe.replace(self.names.borrow().clone());
            self.changes.borrow_mut().clear();
        }
        Ok(())
    }

    fn remove(&self, name: &str) {
        if self.step().is_ok() {
            self.change(name, None);
        }
    }

    fn temporary(&self, name: &str) -> String {
        format!(".{name}.{}.tmp", self.files.borrow().len())
    }
}

/// What is wrong after a crash at the step `steps` of writing `NEW` over `OLD`, if anything is.
fn problem(steps: usize, skips: Skips, random: &mut StdRng) -> Option<String> {
    let mut disk = Disk::default();
    disk.steps_left.set(usize::MAX);
    save(
        &disk,
        ORIGIN,
        &ArchiveBytes::from_iter([OLD.0]),
        Some(OLD.1),
    )
    .unwrap();
    disk.skips = skips;
    disk.steps_left.set(steps);
    let saved = save(
        &disk,
        ORIGIN,
        &ArchiveBytes::from_iter([NEW.0]),
        Some(NEW.1),
    )
    .is_ok();
    let found = match load(&disk.after_crash(random), ORIGIN, u64::MAX) {
        Ok(Some(found)) => found,
        Ok(None) => return Some("nothing is there".to_owned()),
        Err(error) => return Some(error.to_string()),
    };
    let (archive, etag) = (&*found.archive, found.etag.as_deref());
    let allowed = if saved { &[NEW][..] } else { &[OLD, NEW] };
    let Some((_, its)) = allowed.iter().find(|(allowed, _)| *allowed == archive) else {
        return Some(format!("saved: {saved}, found: {archive:?}"));
    };
    let lost = saved && etag.is_none();
    (lost || etag.is_some_and(|etag| etag != *its)).then(|| format!("etag {etag:?}"))
}

/// The problems of crashes at each step, each many times.
fn problems(skips: Skips) -> Vec<String> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    // Each file is written, synced and renamed, then the folder is synced; one step more is none.
    (0..=8)
        .flat_map(|steps| std::iter::repeat_n(steps, 500))
        .filter_map(|steps| problem(steps, skips, &mut random))
        .collect()
}

#[test]
fn a_crash_at_any_step_leaves_the_old_bundle_or_the_new_one() {
    assert_eq!(problems(Skips::Nothing), [""; 0]);
}

#[test]
fn without_a_barrier_a_crash_loses_the_bundle() {
    for skips in [Skips::FileSync, Skips::FolderSync] {
        assert!(!problems(skips).is_empty(), "{skips:?} is not seen");
    }
}
