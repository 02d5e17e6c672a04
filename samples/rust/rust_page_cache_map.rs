// SPDX-License-Identifier: GPL-2.0

//! Page cache map sample: reports the page cache contents of a file and the VMAs that map it.
//!
//! `/dev/rust-page-cache-map` implements the two ioctls of `samples/rust/page_cache_map.h`.
//! `tools/mm/pcmap` prints the answer as a map.
//!
//! The sample has no unsafe code. It takes a snapshot under the lock, in its own memory. It copies
//! the snapshot to the memory of the caller after it has released the lock.

use core::ops::Range;
use kernel::{
    capability::{capable, Capability},
    fs::{
        file::{flags, LocalFile},
        File, //
    },
    ioctl::_IOWR,
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    mm::{
        mapping::AddressSpace,
        page_cache_map::{Content, Extent, MappedArea}, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef,
    uaccess::{UserSlice, UserSliceReader, UserSliceWriter}, //
};
use zerocopy_derive::Immutable;

module! {
    type: RustPageCacheMapModule,
    name: "rust_page_cache_map",
    authors: ["Rust for Linux Contributors"],
    description: "Rust page cache map sample",
    license: "GPL",
}

#[pin_data]
struct RustPageCacheMapModule {
    #[pin]
    _miscdev: MiscDeviceRegistration<RustPageCacheMap>,
}

impl kernel::InPlaceModule for RustPageCacheMapModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let options = MiscDeviceOptions {
            name: c"rust-page-cache-map",
        };

        try_pin_init!(Self {
            _miscdev <- MiscDeviceRegistration::register(options),
        })
    }
}

/// `struct page_cache_map_request`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct Request {
    fd: i32,
    flags: u32,
    start: u64,
    end: u64,
    buffer: u64,
    capacity: u32,
    count: u32,
    reserved: [u64; 2],
}

/// `struct page_cache_map_entry`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Entry {
    index: u64,
    nr_pages: u64,
    value: u64,
    kind: u16,
    order: u16,
    flags: u32,
}

/// `struct page_cache_map_vma`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Vma {
    start: u64,
    end: u64,
    index: u64,
    userfaultfd: u32,
    reserved: u32,
}

// The types have no padding, and have the same size as those in the header.
const _: () = {
    assert!(size_of::<Request>() == 56);
    assert!(size_of::<Entry>() == 32);
    assert!(size_of::<Vma>() == 32);
};

// The constants of the header, in the same order.

const PAGE_CACHE_MAP_MAX_PAGES: u64 = 0x100000;
const PAGE_CACHE_MAP_MAX_VMAS: u32 = 1024;
const PAGE_CACHE_MAP_BATCH: usize = 128;

const PAGE_CACHE_MAP_MORE: u32 = 0x1;
const PAGE_CACHE_MAP_SHMEM: u32 = 0x2;

const PAGE_CACHE_MAP_HOLE: u16 = 0;
const PAGE_CACHE_MAP_VALUE: u16 = 1;
const PAGE_CACHE_MAP_FOLIO: u16 = 2;

const PAGE_CACHE_MAP_LOCKED: u32 = 0x1;
const PAGE_CACHE_MAP_UPTODATE: u32 = 0x2;
const PAGE_CACHE_MAP_DIRTY: u32 = 0x4;
const PAGE_CACHE_MAP_WRITEBACK: u32 = 0x8;

const PAGE_CACHE_MAP_UFFD_MISSING: u32 = 0x1;
const PAGE_CACHE_MAP_UFFD_WP: u32 = 0x2;
const PAGE_CACHE_MAP_UFFD_MINOR: u32 = 0x4;
const PAGE_CACHE_MAP_UFFD_RWP: u32 = 0x8;

const PAGE_CACHE_MAP_ENTRIES: u32 = _IOWR::<Request>('|' as u32, 0x90);
const PAGE_CACHE_MAP_VMAS: u32 = _IOWR::<Request>('|' as u32, 0x91);

/// The number of pages in the largest possible file.
const LARGEST_FILE: u64 = i64::MAX as u64 / PAGE_SIZE as u64;

struct RustPageCacheMap;

#[vtable]
impl MiscDevice for RustPageCacheMap {
    type Ptr = ();

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result {
        Ok(())
    }

    fn ioctl(_me: (), _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let answer = match cmd {
            PAGE_CACHE_MAP_ENTRIES => entries,
            PAGE_CACHE_MAP_VMAS => vmas,
            _ => return Err(ENOTTY),
        };
        // The answer contains addresses of other processes, shadows and swap entries.
        if !capable(Capability::SYS_ADMIN) {
            return Err(EPERM);
        }

        let (mut reader, mut writer) =
            UserSlice::new(UserPtr::from_addr(arg), size_of::<Request>()).reader_writer();
        let mut request = Request::read(&mut reader)?;
        let range = request.range()?;
        let buffer = request.buffer()?;
        let file = readable_file(request.fd)?;
        let mapping = AddressSpace::of_regular(&*file)?;

        answer(mapping, range, &mut request, buffer)?;
        if mapping.is_shmem() {
            request.flags |= PAGE_CACHE_MAP_SHMEM;
        }
        writer.write_slice(request.as_bytes())?;
        Ok(0)
    }
}

impl Request {
    fn read(reader: &mut UserSliceReader) -> Result<Self> {
        let bytes: [u8; size_of::<Self>()] = reader.read()?;
        let mut request = Self::read_from_bytes(&bytes).map_err(|_| EINVAL)?;

        request.count = 0;
        Ok(request)
    }

    /// Returns the range of pages, or an error if a field is invalid.
    fn range(&self) -> Result<Range<usize>> {
        if self.flags != 0 || self.reserved != [0; 2] || self.capacity == 0 {
            return Err(EINVAL);
        }
        if self.start > self.end || self.end > LARGEST_FILE {
            return Err(EINVAL);
        }
        if self.end - self.start > PAGE_CACHE_MAP_MAX_PAGES {
            return Err(E2BIG);
        }
        Ok(self.start.try_into()?..self.end.try_into()?)
    }

    /// Returns the buffer of the caller, an array of [`Entry`] or of [`Vma`].
    ///
    /// Both types have the same size.
    fn buffer(&self) -> Result<UserSliceWriter> {
        const { assert!(size_of::<Entry>() == size_of::<Vma>()) };

        let address = usize::try_from(self.buffer).map_err(|_| EFAULT)?;
        let length = size_of::<Entry>()
            .checked_mul(self.capacity as usize)
            .ok_or(EINVAL)?;

        Ok(UserSlice::new(UserPtr::from_addr(address), length).writer())
    }
}

/// Returns the file that the current process has open as `fd`, if it is open for reading.
fn readable_file(fd: i32) -> Result<ARef<LocalFile>> {
    let file = LocalFile::fget(fd.try_into().map_err(|_| EBADF)?)?;

    match file.flags() & flags::O_ACCMODE {
        flags::O_RDONLY | flags::O_RDWR => Ok(file),
        _ => Err(EBADF),
    }
}

/// Answers `PAGE_CACHE_MAP_ENTRIES`, one batch at a time.
///
/// It stops at the end of the range or of the buffer, or when a signal is pending.
fn entries(
    mapping: &AddressSpace,
    range: Range<usize>,
    request: &mut Request,
    mut buffer: UserSliceWriter,
) -> Result {
    const BATCH: usize = PAGE_CACHE_MAP_BATCH;

    let mut extents = KVec::from_elem(Extent::default(), BATCH, GFP_KERNEL)?;
    let mut next = range.start;

    loop {
        let room = BATCH.min((request.capacity - request.count) as usize);
        let found = mapping.snapshot(next..range.end, &mut extents[..room]);
        let Some(last) = found.last() else {
            break;
        };

        for extent in found {
            buffer.write_slice(Entry::from(extent).as_bytes())?;
        }
        request.count += found.len() as u32;
        next = last.end();
        if current!().signal_pending() {
            break;
        }
    }

    request.start = next.min(range.end) as u64;
    if next < range.end {
        request.flags |= PAGE_CACHE_MAP_MORE;
    }
    Ok(())
}

/// Answers `PAGE_CACHE_MAP_VMAS`.
fn vmas(
    mapping: &AddressSpace,
    range: Range<usize>,
    request: &mut Request,
    mut buffer: UserSliceWriter,
) -> Result {
    let room = request.capacity.min(PAGE_CACHE_MAP_MAX_VMAS);
    let mut areas = KVVec::from_elem(MappedArea::default(), room as usize, GFP_KERNEL)?;
    let (found, more) = mapping.snapshot_vmas(range, &mut areas);

    for area in found {
        buffer.write_slice(Vma::from(area).as_bytes())?;
    }
    request.count = found.len() as u32;
    if more {
        request.flags |= PAGE_CACHE_MAP_MORE;
    }
    Ok(())
}

/// Returns `flag` if `set`, and 0 otherwise.
fn flag(set: bool, flag: u32) -> u32 {
    if set {
        flag
    } else {
        0
    }
}

impl From<&Extent> for Entry {
    fn from(extent: &Extent) -> Self {
        let (kind, value, flags) = match extent.content {
            Content::Hole => (PAGE_CACHE_MAP_HOLE, 0, 0),
            Content::Value(value) => (PAGE_CACHE_MAP_VALUE, value as u64, 0),
            Content::Folio(folio) => (
                PAGE_CACHE_MAP_FOLIO,
                0,
                flag(folio.locked, PAGE_CACHE_MAP_LOCKED)
                    | flag(folio.uptodate, PAGE_CACHE_MAP_UPTODATE)
                    | flag(folio.dirty, PAGE_CACHE_MAP_DIRTY)
                    | flag(folio.writeback, PAGE_CACHE_MAP_WRITEBACK),
            ),
        };

        Self {
            index: extent.start as u64,
            nr_pages: extent.nr_pages as u64,
            value,
            kind,
            order: extent.order as u16,
            flags,
        }
    }
}

impl From<&MappedArea> for Vma {
    fn from(area: &MappedArea) -> Self {
        let modes = area.userfaultfd;

        Self {
            start: area.start as u64,
            end: area.end as u64,
            index: area.pgoff as u64,
            userfaultfd: flag(modes.missing, PAGE_CACHE_MAP_UFFD_MISSING)
                | flag(modes.wp, PAGE_CACHE_MAP_UFFD_WP)
                | flag(modes.minor, PAGE_CACHE_MAP_UFFD_MINOR)
                | flag(modes.rwp, PAGE_CACHE_MAP_UFFD_RWP),
            reserved: 0,
        }
    }
}
