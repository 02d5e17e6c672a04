// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of a collapse, step by step.
//!
//! Results are asserted after all locks were released, because a failing test ends its thread.

use super::*;
use crate::{
    alloc::flags::GFP_KERNEL,
    bindings,
    error::{
        code::{EAGAIN, EIO, ENOMEM},
        Result as KernelResult, //
    },
    mm::{
        folio::{Folio, HPAGE_PMD_NR},
        kunit::{drain, mm, Control, ShmemFile},
        mapping::PmdRange,
        page_cache::{Cursor, Entry, Walk},
    },
    sync::aref::ARef,
};

const LAST: usize = HPAGE_PMD_NR - 1;

fn new_folio(range: PmdRange<'_>) -> KernelResult<NewFolio<'_>> {
    let (mm, cc) = (mm()?, Control::new()?);

    NewFolio::alloc_charged(&mm, &cc, range).map_err(|_| ENOMEM)
}

fn begin(range: PmdRange<'_>) -> KernelResult<OldFolios<'_, Gathering>> {
    OldFolios::new(new_folio(range)?)
}

fn patience() -> KernelResult<Patience> {
    Ok(Patience::new(&*Control::new()?))
}

/// Gathers all folios of a range, as `mm/collapse_file.rs` does if every check passes.
fn gather<'w, 'm>(
    walk: &'w mut Walk<'m>,
    old: &mut OldFolios<'m, Gathering>,
) -> KernelResult<Result<Cursor<'w, 'm>, (usize, ScanResult)>> {
    let range = old.range();
    let mut patience = patience()?;
    let mut locked = Cursor::new(walk).lock_with_slots()?;

    while old.next() < range.end() {
        if !matches!(locked.load(old.next()), Entry::Folio(_)) {
            old.add_hole();
            continue;
        }
        old.find(&mut locked, |_| true);
        let cursor = locked.unlock();
        if let Err(failed) = old.take(&cursor, &mut patience) {
            return Ok(Err(failed));
        }
        match old.lock(cursor) {
            Ok(again) => locked = again,
            Err(_) => return Ok(Err((range.end(), ScanResult::PageFilled))),
        }
    }
    Ok(Ok(locked.unlock()))
}

/// Takes the first batch of a range. Returns where the next one begins.
fn take_batch(
    old: &mut OldFolios<'_, Gathering>,
    wanted: impl Fn(&Folio) -> bool,
) -> KernelResult<Result<usize, (usize, ScanResult)>> {
    let mut walk = old.range().walk();
    let mut locked = Cursor::new(&mut walk).lock();

    old.find(&mut locked, wanted);
    let cursor = locked.unlock();
    let taken = old.take(&cursor, &mut patience()?);
    Ok(taken.map(|()| old.next()))
}

/// Gathers a range, which fails, and puts the folios back.
fn gather_fails(range: PmdRange<'_>) -> KernelResult<Option<(usize, ScanResult)>> {
    let mut old = begin(range)?;

    drain();
    let failed = gather(&mut range.walk(), &mut old)?.err();

    drop(old);
    drain();
    Ok(failed)
}

/// Returns the huge folio that is all that a file has.
fn huge_folio(file: &ShmemFile) -> KernelResult<ARef<Folio>> {
    let folio = file.folio(0)?;

    if folio.is_pmd_order() && file.pages() == HPAGE_PMD_NR {
        Ok(folio)
    } else {
        Err(EIO)
    }
}

/// Returns whether the first page of the range is in a huge folio that is locked.
fn has_locked_huge_folio(range: PmdRange<'_>) -> bool {
    let mut walk = range.walk();
    let mut locked = Cursor::new(&mut walk).lock();

    match locked.load(range.start()) {
        Entry::Folio(folio) => folio.is_pmd_order() && folio.is_locked(),
        _ => false,
    }
}

/// Returns the number of holes in the range.
fn holes_of(range: PmdRange<'_>) -> usize {
    let mut walk = range.walk();
    let mut locked = Cursor::new(&mut walk).lock();

    locked.count_empty(range.indices())
}

/// A file of two ranges. The first has three pages: two at its beginning and one at its end.
fn file_with_holes() -> KernelResult<ShmemFile> {
    let file = ShmemFile::new(2 * HPAGE_PMD_NR)?;

    file.fill(0..2)?;
    file.fill(LAST..HPAGE_PMD_NR)?;
    Ok(file)
}

const HOLES: usize = HPAGE_PMD_NR - 3;

/// Runs `last` on a collapse of the first range that is ready to be committed.
fn with_copied<R>(
    file: &ShmemFile,
    last: impl for<'w, 'm> FnOnce(LastLock<'w, 'm>) -> R,
) -> KernelResult<R> {
    let range = file.mapping().pmd_range(0);
    let mut walk = range.walk();
    let mut old = begin(range)?;

    // Reading a page twice puts it in an LRU batch, which holds a reference.
    drain();
    let cursor = gather(&mut walk, &mut old)?.map_err(|_| EAGAIN)?;
    let old = old.flush(&cursor).charge_holes(&cursor)?;
    let old = old.copy(&cursor).map_err(|_| EIO)?;

    let result = last(old.lock_for_commit(cursor));
    drain();
    Ok(result)
}

#[macros::kunit_tests(rust_kernel_mm_collapse)]
mod kunit {
    use super::*;

    #[test]
    fn new_folio_is_freed_when_dropped() -> KernelResult {
        let file = ShmemFile::new(2 * HPAGE_PMD_NR)?;
        let new = new_folio(file.mapping().pmd_range(HPAGE_PMD_NR))?;

        let folio = ARef::from(new.folio());
        assert!(folio.is_locked() && folio.is_pmd_order() && !folio.is_uptodate());
        assert_eq!(folio.nr_pages(), HPAGE_PMD_NR);
        assert_eq!(folio.index(), HPAGE_PMD_NR);
        assert!(file.mapping().contains(&folio));
        assert_eq!(folio.ref_count(), 2);
        drop(new);
        // It is like any other folio, and only this test has a reference.
        assert!(!folio.is_locked() && !file.mapping().contains(&folio));
        assert_eq!(folio.ref_count(), 1);
        Ok(())
    }

    #[test]
    fn caller_is_not_khugepaged() -> KernelResult {
        assert!(!Control::new()?.is_khugepaged());
        Ok(())
    }

    #[test]
    fn batch_has_folios_and_holes() -> KernelResult {
        let file = ShmemFile::new(HPAGE_PMD_NR)?;
        file.fill(0..3)?;
        file.fill(4..5)?;
        let range = file.mapping().pmd_range(0);

        // Up to the end of the range, and up to a folio that is not wanted.
        let mut old = begin(range)?;
        let all = take_batch(&mut old, |_| true)?;
        let holes = old.holes();
        drop(old);
        drain();
        let mut old = begin(range)?;
        let some = take_batch(&mut old, |folio| folio.index() != 4)?;
        drop(old);
        drain();

        assert_eq!((all, holes), (Ok(range.end()), HPAGE_PMD_NR - 4));
        assert_eq!(some, Ok(4));
        Ok(())
    }

    #[test]
    fn cursor_of_another_range_finds_nothing() -> KernelResult {
        let file = file_with_holes()?;
        let mut walk = file.mapping().pmd_range(0).walk();
        let mut old = begin(file.mapping().pmd_range(HPAGE_PMD_NR))?;
        let mut locked = Cursor::new(&mut walk).lock();
        old.find(&mut locked, |_| true);
        let cursor = locked.unlock();
        let taken = old.take(&cursor, &mut patience()?);

        assert_eq!(taken, Ok(()));
        assert_eq!(old.next(), HPAGE_PMD_NR);
        Ok(())
    }

    #[test]
    fn folio_of_another_file_is_refused() -> KernelResult {
        let (file, other) = (file_with_holes()?, file_with_holes()?);
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut old = begin(range)?;

        old.begin_batch();
        let added = old.add_locked(other.lock(0)?);
        let taken = old.take(&Cursor::new(&mut walk), &mut patience()?);
        drop(old);
        assert_eq!(added, Ok(1));
        assert_eq!(taken, Err((0, ScanResult::Truncated)));
        assert_eq!(other.folio(0)?.ref_count(), 2);
        Ok(())
    }

    #[test]
    fn folio_that_is_not_uptodate_is_refused() -> KernelResult {
        let file = ShmemFile::new(HPAGE_PMD_NR)?;
        file.fill(0..1)?;
        file.allocate(1)?;
        file.fill(2..4)?;
        let range = file.mapping().pmd_range(0);
        let held = file.folio(1)?;
        let mut walk = range.walk();
        let mut old = begin(range)?;

        let mut locked = Cursor::new(&mut walk).lock();
        old.find(&mut locked, |_| true);
        let cursor = locked.unlock();
        let taken = old.take(&cursor, &mut patience()?);
        drop(old);
        drain();
        assert_eq!(taken, Err((1, ScanResult::Fail)));
        assert!(!held.is_locked());
        assert_eq!(held.ref_count(), 2);
        Ok(())
    }

    #[test]
    fn locked_folio_is_refused() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);

        let locked = file.lock(1)?;
        assert_eq!(gather_fails(range)?, Some((1, ScanResult::PageLock)));
        drop(locked);
        assert_eq!(gather_fails(range)?, None);
        Ok(())
    }

    #[test]
    fn folio_with_other_users_is_refused() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);

        let user = file.folio(1)?;
        assert_eq!(gather_fails(range)?, Some((1, ScanResult::PageCount)));
        assert!(!user.is_locked());
        assert_eq!(user.ref_count(), 2);
        drop(user);
        assert_eq!(gather_fails(range)?, None);
        Ok(())
    }

    #[test]
    fn folio_that_is_off_the_lru_is_refused() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let folio = file.folio(LAST)?;

        // SAFETY: The folio is alive.
        let taken = unsafe { bindings::folio_isolate_lru(folio.as_raw()) };
        let failed = gather_fails(range)?;
        // SAFETY: It was isolated above, which has taken the reference.
        unsafe { bindings::folio_putback_lru(folio.as_raw()) };
        drop(folio);
        drain();
        assert!(taken);
        assert_eq!(failed, Some((LAST, ScanResult::DelPageLru)));
        assert_eq!(gather_fails(range)?, None);
        Ok(())
    }

    #[test]
    fn folio_that_was_truncated_is_looked_up_again() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut old = begin(range)?;

        let mut locked = Cursor::new(&mut walk).lock();
        old.find(&mut locked, |_| true);
        let cursor = locked.unlock();
        file.punch(1);
        let taken = old.take(&cursor, &mut patience()?);
        let next = old.next();
        drop(old);
        drain();
        assert_eq!((taken, next), (Ok(()), 1));
        Ok(())
    }

    #[test]
    fn filled_hole_is_noticed_at_the_next_lock() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut old = begin(range)?;

        let mut locked = Cursor::new(&mut walk).lock();
        old.find(&mut locked, |_| true);
        let cursor = locked.unlock();
        let taken = old.take(&cursor, &mut patience()?);
        file.fill(7..8)?;
        let noticed = old.lock(cursor).is_err();
        drop(old);
        drain();
        assert!(taken.is_ok() && noticed);
        Ok(())
    }

    #[test]
    fn dropped_old_folios_are_put_back() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut old = begin(range)?;
        let held = [file.folio(0)?, file.folio(1)?, file.folio(LAST)?];
        let raw = held.each_ref().map(|folio| folio.as_raw());
        drop(held);

        let cursor = gather(&mut walk, &mut old)?.map_err(|_| EAGAIN)?;
        // SAFETY: The folios are in the page cache, which has references.
        let held = raw.map(|folio| ARef::from(unsafe { Folio::from_raw(folio) }));
        // The page cache's, the lock's, the isolation's, and the test's.
        let taken = held
            .iter()
            .filter(|folio| folio.is_locked() && folio.ref_count() == 4 && !folio.is_on_lru())
            .count();
        drop((old, cursor));
        drain();
        let put_back = held
            .iter()
            .filter(|folio| !folio.is_locked() && folio.ref_count() == 2 && folio.is_on_lru())
            .count();
        drop(held);

        assert_eq!((taken, put_back), (3, 3));
        assert_eq!(gather_fails(range)?, None);
        assert_eq!(file.pages(), 3);
        Ok(())
    }

    #[test]
    fn old_folios_are_unmapped() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mapped = file.map(0..2)?;
        mapped.touch()?;
        let folio = file.folio(0)?.as_raw();

        let mut walk = range.walk();
        let mut old = begin(range)?;
        let cursor = gather(&mut walk, &mut old)?.map_err(|_| EAGAIN)?;
        let old = old.flush(&cursor);
        // SAFETY: The folio is in the page cache, which has a reference.
        let still = unsafe { Folio::from_raw(folio) }.is_mapped();
        let holes = old.holes();
        drop(old);
        assert_eq!((still, holes), (false, HOLES));
        // A fault waits for the folio lock, and gets it.
        mapped.touch()
    }

    #[test]
    fn wrong_number_of_holes_restores_them() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        let mut walk = range.walk();
        let mut old = begin(range)?;
        let cursor = gather(&mut walk, &mut old)?.map_err(|_| EAGAIN)?;
        let old = old.flush(&cursor).charge_holes(&cursor)?;
        let old = old.copy(&cursor).map_err(|_| EIO)?;

        file.fill(7..8)?;
        let failed = old
            .lock_for_commit(cursor)
            .fill_holes()?
            .expect_holes()
            .err();
        drain();
        assert_eq!(failed, Some(EAGAIN));
        assert_eq!(holes_of(range), HOLES - 1);
        assert_eq!(file.pages(), 4);
        Ok(())
    }

    #[test]
    fn each_state_rolls_back() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);

        for state in 0..4 {
            let rolled_back = with_copied(&file, |last| {
                if state > 0 {
                    let filled = last.fill_holes()?;
                    if state > 1 {
                        let counted = filled.expect_holes()?;
                        if state > 2 {
                            drop(counted.check_userfaultfd()?);
                        }
                    }
                }
                Ok::<(), crate::error::Error>(())
            });

            rolled_back??;
            assert_eq!(holes_of(range), HOLES);
            assert_eq!(file.pages(), 3);
            for index in [0, 1, LAST] {
                assert_eq!(file.content(index)?, ShmemFile::byte(index));
            }
        }
        assert_eq!(gather_fails(range)?, None);
        Ok(())
    }

    #[test]
    fn vma_without_userfaultfd_does_not_matter() -> KernelResult {
        let file = file_with_holes()?;
        let _mapped = file.map(0..HPAGE_PMD_NR)?;

        with_copied(&file, |last| {
            last.fill_holes()?
                .expect_holes()?
                .check_userfaultfd()
                .map(drop)
        })?
    }

    #[cfg(CONFIG_USERFAULTFD)]
    #[test]
    fn userfaultfd_for_missing_pages_restores_the_holes() -> KernelResult {
        let file = file_with_holes()?;
        let range = file.mapping().pmd_range(0);
        // The VMA with the userfaultfd is neither the first nor the only one.
        let _first = file.map(0..HPAGE_PMD_NR)?;
        let mapped = file.map(LAST..HPAGE_PMD_NR + 1)?;
        let seal = || {
            with_copied(&file, |last| {
                last.fill_holes()?
                    .expect_holes()?
                    .check_userfaultfd()
                    .map(drop)
            })
        };

        mapped.wait_for_missing(true);
        assert_eq!(seal()?.err(), Some(crate::error::code::EBUSY));
        assert_eq!(holes_of(range), HOLES);
        mapped.wait_for_missing(false);
        seal()?
    }

    #[cfg(CONFIG_USERFAULTFD)]
    #[test]
    fn userfaultfd_next_to_the_range_does_not_matter() -> KernelResult {
        let file = file_with_holes()?;
        // It begins exactly where the range ends.
        let mapped = file.map(HPAGE_PMD_NR..HPAGE_PMD_NR + 1)?;

        mapped.wait_for_missing(true);
        with_copied(&file, |last| {
            last.fill_holes()?
                .expect_holes()?
                .check_userfaultfd()
                .map(drop)
        })?
    }

    #[test]
    fn commit_fills_the_holes_with_zeroes() -> KernelResult {
        let file = file_with_holes()?;
        let mapped = file.map(0..2)?;
        mapped.touch()?;
        let was = file.folio(0)?.as_raw();

        let was = with_copied(&file, |last| {
            // SAFETY: The folio is in the page cache until the commit.
            let was = ARef::from(unsafe { Folio::from_raw(was) });
            let (huge, replaced) = last
                .fill_holes()?
                .expect_holes()?
                .check_userfaultfd()?
                .commit()?;
            let locked = has_locked_huge_folio(file.mapping().pmd_range(0));
            huge.retract_page_tables();
            huge.unlock();
            replaced.release();
            Ok::<_, crate::error::Error>((was, locked))
        })?;
        let (was, locked) = was?;

        assert!(locked);
        let folio = huge_folio(&file)?;
        assert!(!folio.is_locked() && folio.is_uptodate());
        assert!(folio.is_dirty() && !folio.is_under_writeback());
        drop(folio);
        for index in [0, 1, LAST] {
            assert_eq!(file.content(index)?, ShmemFile::byte(index));
        }
        for index in [2, 64, LAST - 1] {
            assert_eq!(file.content(index)?, 0);
        }
        // The page cache has a reference for each page, and this test one.
        drain();
        assert_eq!(file.folio(0)?.ref_count(), HPAGE_PMD_NR + 1);
        // Only this test has a reference to the old folio.
        assert!(!was.is_locked() && !file.mapping().contains(&was));
        assert_eq!(was.ref_count(), 1);
        Ok(())
    }

    #[test]
    fn full_range_is_replaced_without_a_hole() -> KernelResult {
        let file = ShmemFile::new(HPAGE_PMD_NR)?;
        file.fill(0..HPAGE_PMD_NR)?;

        with_copied(&file, |last| {
            let done = last
                .fill_holes()?
                .expect_holes()?
                .check_userfaultfd()?
                .commit()?;
            // The rest is done by dropping these.
            drop(done);
            Ok::<(), crate::error::Error>(())
        })??;

        let folio = huge_folio(&file)?;
        assert!(!folio.is_locked() && folio.is_uptodate());
        for index in 0..HPAGE_PMD_NR {
            assert_eq!(file.content(index)?, ShmemFile::byte(index));
        }
        assert!(file.folio(LAST)?.is_pmd_order());
        Ok(())
    }

    #[test]
    fn release_of_nothing_succeeds() -> KernelResult {
        let file = file_with_holes()?;

        assert!(file.lock(0)?.release_private(GFP_KERNEL));
        Ok(())
    }
}
