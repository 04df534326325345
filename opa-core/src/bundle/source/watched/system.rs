//! What the operating system tells of changes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) type Signals = Arc<Mutex<Vec<Weak<Signal>>>>;

/// Tells of changes at or below some places.
pub(super) struct Signal {
    pub(super) places: Mutex<Vec<Place>>,
    pub(super) changes: watch::Sender<()>,
}

/// What the operating system was asked to tell of.
#[derive(Default)]
pub(super) struct System {
    watcher: Option<RecommendedWatcher>,
    /// How many paths need each place.
    places: HashMap<Place, usize>,
}

/// A directory or file, and whether all below it counts.
pub(super) type Place = (PathBuf, bool);

impl System {
    /// All of `places`, or none.
    pub(super) fn watch(&mut self, signals: &Signals, places: &[Place]) -> notify::Result<()> {
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            None => {
                let signals = Arc::clone(signals);
                let tell = move |event: notify::Result<notify::Event>| tell(&signals, event.ok());
                let config = notify::Config::default().with_follow_symlinks(false);
                self.watcher.insert(RecommendedWatcher::new(tell, config)?)
            }
        };
        for (at, place) in places.iter().enumerate() {
            let users = self.places.entry(place.clone()).or_insert(0);
            let mode = match place.1 {
                true => RecursiveMode::Recursive,
                false => RecursiveMode::NonRecursive,
            };
            // A directory of the same name may be another one now.
            if place.1 && *users > 0 {
                let _ = watcher.unwatch(&place.0);
            }
            let watched = match *users == 0 || place.1 {
                true => watcher.watch(&place.0, mode),
                false => Ok(()),
            };
            *users += 1;
            if let Err(error) = watched {
                self.forget(places.get(..=at).unwrap_or_default());
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, places: &[Place]) {
        for place in places {
            let Some(users) = self.places.get_mut(place) else {
                continue;
            };
            *users -= 1;
            if *users > 0 {
                continue;
            }
            self.places.remove(place);
            let other = (place.0.clone(), !place.1);
            if self.places.contains_key(&other) {
                continue;
            }
            if let Some(watcher) = &mut self.watcher {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(&place.0);
            }
        }
    }
}

/// Tells those whom a change concerns; all when it isn't known what changed.
fn tell(signals: &Signals, event: Option<notify::Event>) {
    let event = event.filter(|event| !event.need_rescan());
    if event
        .as_ref()
        .is_some_and(|event| matches!(event.kind, EventKind::Access(_)))
    {
        return;
    }
    for signal in signals.lock().iter().filter_map(Weak::upgrade) {
        let concerns = |path: &PathBuf| {
            let places = signal.places.lock();
            places.iter().any(|(place, _)| path.starts_with(place))
        };
        if event
            .as_ref()
            .is_none_or(|event| event.paths.iter().any(concerns))
        {
            signal.changes.send_replace(());
        }
    }
}
