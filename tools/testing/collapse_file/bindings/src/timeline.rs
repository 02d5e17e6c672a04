// SPDX-License-Identifier: GPL-2.0

//! The timeline of an execution, which a failure prints.

use crate::{
    event::{place, Event, Slot, What},
    world::{with, Task},
};
use std::collections::{BTreeMap, BTreeSet};

/// Returns the timeline: the file at the beginning, then a line for each event in a column for each
/// task.
pub fn timeline() -> String {
    with(|w| {
        const WIDTH: usize = 30;
        let begin = w.events.iter().position(|e| e.task != 0).unwrap_or(0);
        let (before, events) = w.events.split_at(begin);
        let tasks: BTreeSet<Task> = events.iter().map(|e| e.task).collect();
        let column = |task: Task| tasks.range(..task).count() * WIDTH;
        let mut text = contents(before);
        for &task in &tasks {
            text.push_str(&format!("{:WIDTH$}", w.tasks[task].name));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        let mut rest = events.iter().peekable();
        while let Some(event) = rest.next() {
            let next = rest.peek().filter(|e| e.task == event.task);
            let (line, both) = match (event.what, next.map(|e| e.what)) {
                (What::Store(..), Some(What::Stored)) => (event.what.to_string(), true),
                (What::Store(..), _) => (format!("{} ...", event.what), false),
                (What::Lock, Some(What::Unlock)) => ("lock and unlock page cache".into(), true),
                (What::IMmapRead, Some(What::IMmapUnlock)) => {
                    ("lock and unlock i_mmap".into(), true)
                }
                _ => (event.what.to_string(), false),
            };
            if both {
                rest.next();
            }
            text.push_str(&" ".repeat(column(event.task)));
            text.push_str(&line);
            text.push('\n');
        }
        if let Some(violation) = &w.violation {
            text.push_str(&format!("=> {violation}\n"));
        }
        text
    })
}

/// Returns a line with the entries of the file after `events`, without the holes.
fn contents(events: &[Event]) -> String {
    let mut slots = BTreeMap::new();
    for event in events {
        if let What::Store(index, order, slot) = event.what {
            slots.insert((index, order), slot);
        }
    }
    let pages: Vec<String> = slots
        .into_iter()
        .filter(|(_, slot)| *slot != Slot::Hole)
        .map(|((index, order), slot)| format!("{} {slot}", place(index, order)))
        .collect();
    let shown = pages.len().min(16);
    let more = if shown < pages.len() { ", ..." } else { "" };
    format!("file: {}{more}\n", pages[..shown].join(", "))
}
