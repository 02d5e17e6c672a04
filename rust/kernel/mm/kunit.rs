// SPDX-License-Identifier: GPL-2.0

//! Shmem files, mappings of them, and callers of a collapse, for the tests and the examples of
//! `kernel::mm`.
//!
//! It is public because examples are a crate of their own.

use crate::{
    alloc::{flags::GFP_KERNEL, KVec},
    bindings,
    error::{
        code::{EINVAL, EIO},
        from_err_ptr, to_result, Result,
    },
    ffi::c_void,
    fs::file::{File, LocalFile},
    mm::{
        collapse::CollapseControl,
        folio::{Folio, LockedFolio, HPAGE_PMD_NR},
        mapping::{AddressSpace, FileRef},
        page_cache::Cursor,
        Mm, //
    },
    page::PAGE_SIZE,
    str::CStrExt,
    sync::aref::ARef,
    types::NotThreadSafe,
    uaccess::{UserPtr, UserSlice}, //
};
use core::{
    marker::PhantomData,
    ops::{Deref, Range},
    ptr::NonNull, //
};

// The same on all architectures.
const PROT_READ: usize = 1;
const MAP_SHARED: usize = 1;

/// A shmem file that has no name, so no other task knows it, and whose pages are charged
/// for one by one.
///
/// # Invariants
///
/// The object owns a reference to the file, which is open for reading and writing.
pub struct ShmemFile(NonNull<bindings::file>);

impl ShmemFile {
    /// Makes a file of this number of pages, all of which are holes.
    pub fn new(pages: usize) -> Result<Self> {
        let flags = bindings::vma_flags_t {
            __vma_flags: [bindings::VM_NORESERVE; 1],
        };
        // SAFETY: The name is a static string.
        let file = from_err_ptr(unsafe {
            bindings::shmem_kernel_file_setup(
                c"kunit".as_char_ptr(),
                (pages * PAGE_SIZE) as bindings::loff_t,
                flags,
            )
        })?;

        // INVARIANT: The reference was made for us.
        Ok(Self(NonNull::new(file).ok_or(EINVAL)?))
    }

    /// Its mapping.
    pub fn mapping(&self) -> &AddressSpace {
        AddressSpace::of(&**self)
    }

    /// The byte that [`fill`](Self::fill) writes to a page.
    ///
    /// It is not zero, and differs from those of the neighbours.
    pub fn byte(index: usize) -> u8 {
        (index % 255) as u8 + 1
    }

    /// Writes to all of these pages, each of which is a folio then that is on the LRU.
    pub fn fill(&self, pages: Range<usize>) -> Result {
        for index in pages {
            let page = KVec::from_elem(Self::byte(index), PAGE_SIZE, GFP_KERNEL)?;
            let mut pos = (index * PAGE_SIZE) as bindings::loff_t;
            // SAFETY: The file is open for writing, and `page` is as large as is said.
            let written = unsafe {
                bindings::kernel_write(self.as_ptr(), page.as_ptr().cast(), PAGE_SIZE, &mut pos)
            };

            if written != PAGE_SIZE as isize {
                return Err(EIO);
            }
        }
        drain();
        Ok(())
    }

    /// The byte that all of this page consists of.
    ///
    /// # Errors
    ///
    /// [`EIO`] if they are not all the same, or cannot be read.
    pub fn content(&self, index: usize) -> Result<u8> {
        let mut page = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
        let mut pos = (index * PAGE_SIZE) as bindings::loff_t;
        // SAFETY: The file is open for reading, and `page` is as large as is said.
        let read = unsafe {
            bindings::kernel_read(self.as_ptr(), page.as_mut_ptr().cast(), PAGE_SIZE, &mut pos)
        };

        if read != PAGE_SIZE as isize || page.iter().any(|&byte| byte != page[0]) {
            return Err(EIO);
        }
        Ok(page[0])
    }

    /// Allocates a page without writing to it: `fallocate()`.
    pub fn allocate(&self, index: usize) -> Result {
        let offset = (index * PAGE_SIZE) as bindings::loff_t;

        // SAFETY: The file is open for writing.
        to_result(unsafe {
            bindings::vfs_fallocate(self.as_ptr(), 0, offset, PAGE_SIZE as bindings::loff_t)
        })?;
        drain();
        Ok(())
    }

    /// Makes a hole of a page.
    pub fn punch(&self, index: usize) {
        let start = index * PAGE_SIZE;

        // SAFETY: The inode is alive, and of shmem.
        unsafe {
            bindings::shmem_truncate_range(
                self.mapping().host(),
                start as bindings::loff_t,
                (start + PAGE_SIZE - 1) as bindings::uoff_t,
            )
        };
    }

    /// Returns whether no task holds the file's `i_mmap_rwsem`.
    pub fn i_mmap_is_free(&self) -> bool {
        // SAFETY: The mapping, which contains the semaphore, is alive.
        let rwsem = unsafe { &raw mut (*self.mapping().as_raw()).i_mmap_rwsem };
        // SAFETY: The semaphore is alive.
        let taken = unsafe { bindings::down_write_trylock(rwsem) } != 0;

        if taken {
            // SAFETY: The semaphore was taken above.
            unsafe { bindings::up_write(rwsem) };
        }
        taken
    }

    /// The number of pages that the file counts as its own, with those that it was charged for
    /// ahead.
    pub fn pages(&self) -> usize {
        // SAFETY: The mapping is alive; the number is read in one go.
        unsafe { (*self.mapping().as_raw()).nrpages }
    }

    /// Waits for the lock of the folio of this page.
    pub fn lock(&self, index: usize) -> Result<LockedFolio> {
        let mut walk = self
            .mapping()
            .pmd_range(index - index % HPAGE_PMD_NR)
            .walk();

        Cursor::new(&mut walk).filemap_lock_folio(index)
    }

    /// Returns a reference to the folio of this page, after waiting for its lock.
    pub fn folio(&self, index: usize) -> Result<ARef<Folio>> {
        let folio = self.lock(index)?;

        Ok((&*folio).into())
    }

    /// Maps these pages for the thread of the test.
    pub fn map(&self, pages: Range<usize>) -> Result<Mapped<'_>> {
        let len = pages.len() * PAGE_SIZE;

        attach_mm()?;
        // SAFETY: The thread has an address space, and the file is open for reading.
        let address = unsafe {
            bindings::vm_mmap(
                self.as_ptr(),
                0,
                len,
                PROT_READ,
                MAP_SHARED,
                pages.start * PAGE_SIZE,
            )
        };

        // INVARIANT: Mapped just now.
        Ok(Mapped {
            address: from_err_ptr(address as *mut c_void)? as usize,
            len,
            _file: PhantomData,
            _not_send: NotThreadSafe,
        })
    }
}

impl Deref for ShmemFile {
    type Target = LocalFile;

    fn deref(&self) -> &LocalFile {
        // SAFETY: The object owns a reference. No task is in `fdget_pos()` for this file, which has
        // no descriptor.
        unsafe { LocalFile::from_raw_file(self.0.as_ptr()) }
    }
}

impl Drop for ShmemFile {
    fn drop(&mut self) {
        // SAFETY: The object owns a reference.
        unsafe { bindings::fput(self.0.as_ptr()) };
    }
}

impl<'a> From<&'a ShmemFile> for &'a FileRef {
    fn from(file: &'a ShmemFile) -> Self {
        (&**file).into()
    }
}

/// A VMA of the thread that runs the test.
///
/// # Invariants
///
/// `len` bytes from `address` on are mapped by one VMA of the current thread, and no other task
/// changes it.
pub struct Mapped<'f> {
    address: usize,
    len: usize,
    _file: PhantomData<&'f ShmemFile>,
    _not_send: NotThreadSafe,
}

impl Mapped<'_> {
    /// The address of the first byte.
    pub fn address(&self) -> usize {
        self.address
    }

    /// The address after the last byte.
    pub fn end(&self) -> usize {
        self.address + self.len
    }

    /// Reads a byte of each page, so that all of them are mapped by page tables.
    pub fn touch(&self) -> Result {
        for address in (self.address..self.end()).step_by(PAGE_SIZE) {
            UserSlice::new(UserPtr::from_addr(address), 1)
                .reader()
                .read::<u8>()?;
        }
        Ok(())
    }

    /// Sets or clears the flag of a userfaultfd that waits for missing pages of the VMA.
    ///
    /// No task answers, so missing pages must not be touched.
    pub fn wait_for_missing(&self, wait: bool) {
        // SAFETY: The current thread has an address space and a VMA at `address`, by the type
        // invariants. Only this thread uses the address space, so no other task reads the flags.
        unsafe {
            let vma = bindings::vma_lookup((*bindings::get_current()).mm, self.address);
            let flags = &raw mut (*vma).__bindgen_anon_2.vm_flags;
            let missing: bindings::vm_flags_t = 1 << bindings::VMA_UFFD_MISSING_BIT;

            *flags = if wait {
                *flags | missing
            } else {
                *flags & !missing
            };
        }
    }
}

impl Drop for Mapped<'_> {
    fn drop(&mut self) {
        self.wait_for_missing(false);
        // SAFETY: The range is mapped, by the type invariants, and the object that used it is gone.
        // If memory is short, the VMA stays until the thread ends.
        unsafe { bindings::vm_munmap(self.address, self.len) };
    }
}

/// The context of a collapse that `madvise()` asks for.
///
/// # Invariants
///
/// Holds an initialized `collapse_control` that no other task uses.
pub struct Control(KVec<u64>, NotThreadSafe);

impl Control {
    /// Creates one.
    pub fn new() -> Result<Self> {
        // The type is private to `mm/khugepaged.c`, which returns its size and initializes it with
        // zeroes.
        //
        // SAFETY: No preconditions.
        let size = unsafe { bindings::collapse_control_size() };
        let zeroes = KVec::from_elem(0, size.div_ceil(size_of::<u64>()), GFP_KERNEL)?;

        // INVARIANT: The memory is large enough, aligned, and all zeroes.
        Ok(Self(zeroes, NotThreadSafe))
    }
}

impl Deref for Control {
    type Target = CollapseControl;

    fn deref(&self) -> &CollapseControl {
        // SAFETY: The object is initialized, and no other task uses it, by the type invariant.
        unsafe { CollapseControl::from_raw(self.0.as_ptr().cast_mut().cast()) }
    }
}

/// Gives the thread of the test an address space, which goes with it.
fn attach_mm() -> Result {
    // SAFETY: Tests are run in threads of the kernel, and the examples with them.
    to_result(unsafe { bindings::kunit_attach_mm() })
}

/// The address space of the thread of the test.
pub fn mm() -> Result<ARef<Mm>> {
    attach_mm()?;
    // SAFETY: The current thread has an address space, which it keeps for as long as `mm` is used.
    Ok(unsafe { Mm::from_raw((*bindings::get_current()).mm) }.into())
}

/// A file that is not a regular one, nor of shmem.
pub fn directory() -> Result<ARef<File>> {
    // SAFETY: The name is a string. Each thread has a root directory.
    let file = from_err_ptr(unsafe {
        bindings::filp_open(c"/".as_char_ptr(), bindings::O_RDONLY as i32, 0)
    })?;
    let file = NonNull::new(file).ok_or(EINVAL)?;

    // SAFETY: The reference was made for us, and no descriptor stands for the file.
    Ok(unsafe { ARef::from_raw(file.cast()) })
}

/// Moves the folios in all CPUs' LRU batches to the LRU, and drops the references that these hold.
pub fn drain() {
    // SAFETY: No preconditions.
    unsafe { bindings::lru_add_drain_all() };
}
