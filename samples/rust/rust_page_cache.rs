// SPDX-License-Identifier: GPL-2.0

//! Page cache sample: what the first 2 MiB of a file are cached in.
//!
//! Shows the cursor of [`kernel::mm::page_cache`] without a collapse. `/dev/rust-page-cache` takes
//! one ioctl, with an array of twelve 64-bit numbers. The first is a file descriptor; all are
//! replaced by counts: of the holes, of the values (swapped out, or shadows of what was reclaimed),
//! and of the folios of order 0, 1, and so on up to 9.
//!
//! Only built in, never a module: the page cache's own helpers are not exported.

use kernel::{
    fs::{file::LocalFile, File},
    ioctl::_IOWR,
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    mm::{
        folio::HPAGE_PMD_NR,
        page_cache::{AddressSpace, Cursor, Entry},
    },
    prelude::*,
    uaccess::UserSlice, //
};

/// Holes, values, and folios by order.
type Counts = [u64; 12];

const RUST_PAGE_CACHE_COUNT: u32 = _IOWR::<Counts>('|' as u32, 0x90);

module! {
    type: RustPageCacheModule,
    name: "rust_page_cache",
    authors: ["Rust for Linux Contributors"],
    description: "Rust page cache sample",
    license: "GPL",
}

#[pin_data]
struct RustPageCacheModule {
    #[pin]
    _miscdev: MiscDeviceRegistration<RustPageCache>,
}

impl kernel::InPlaceModule for RustPageCacheModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let options = MiscDeviceOptions {
            name: c"rust-page-cache",
        };

        try_pin_init!(Self {
            _miscdev <- MiscDeviceRegistration::register(options),
        })
    }
}

struct RustPageCache;

#[vtable]
impl MiscDevice for RustPageCache {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        Ok(KBox::new(RustPageCache, GFP_KERNEL)?)
    }

    fn ioctl(_me: &RustPageCache, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        if cmd != RUST_PAGE_CACHE_COUNT {
            return Err(ENOTTY);
        }
        let (mut reader, mut writer) =
            UserSlice::new(UserPtr::from_addr(arg), size_of::<Counts>()).reader_writer();
        let fd = u32::try_from(reader.read::<u64>()?).map_err(|_| EBADF)?;
        let file = LocalFile::fget(fd)?;

        writer.write(&count(AddressSpace::of(&file)))?;
        Ok(0)
    }
}

/// Counts what the first [`HPAGE_PMD_NR`] slots hold. Takes the page-cache lock.
fn count(mapping: &AddressSpace) -> Counts {
    let mut counts = Counts::default();
    let mut walk = mapping.pmd_range(0).walk();
    let mut locked = Cursor::new(&mut walk).lock();
    let mut index = 0;

    while index < HPAGE_PMD_NR {
        index += match locked.load(index) {
            Entry::Empty => {
                counts[0] += 1;
                1
            }
            Entry::Value => {
                counts[1] += 1;
                1
            }
            Entry::Folio(folio) => {
                if let Some(count) = counts.get_mut(2 + folio.order() as usize) {
                    *count += 1;
                }
                folio.nr_pages()
            }
        };
    }
    counts
}
