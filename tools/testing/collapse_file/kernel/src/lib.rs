// SPDX-License-Identifier: GPL-2.0

//! The `kernel` crate, as far as `mm/collapse_file.rs` needs it.
//!
//! What is tested is included from where it is. The rest has the interface of the original and just
//! enough behind it.

// The kernel supports compilers that have no `is_multiple_of()`.
#![allow(clippy::manual_is_multiple_of)]

pub extern crate bindings;

pub mod xarray;

/// Memory management.
#[path = "../../../../../rust/kernel/mm"]
pub mod mm {
    pub mod collapse;
    pub mod folio;
    pub mod mapping;
    pub mod mmdebug;
    pub mod page_cache;
    pub mod page_cache_map;
    pub mod rmap;
    pub mod shmem;

    use crate::types::Opaque;

    /// `struct mm_struct`.
    #[repr(transparent)]
    pub struct Mm(Opaque<bindings::mm_struct>);

    impl Mm {
        /// Makes a Rust reference from a C pointer.
        ///
        /// # Safety
        ///
        /// `ptr` is valid for `'a`.
        pub unsafe fn from_raw<'a>(ptr: *const bindings::mm_struct) -> &'a Self {
            // SAFETY: Transparent; the caller promises the rest.
            unsafe { &*ptr.cast() }
        }

        /// The C object.
        pub fn as_raw(&self) -> *mut bindings::mm_struct {
            self.0.get()
        }
    }
}

/// C types.
#[allow(non_camel_case_types)]
pub mod ffi {
    pub use core::ffi::c_void;
    pub type c_int = i32;
    pub type c_uint = u32;
    pub type c_ulong = usize;
}

/// Allocation.
pub mod alloc {
    use crate::error::{code::ENOMEM, Result};
    use core::{
        mem::MaybeUninit,
        ops::{Deref, DerefMut},
    };

    /// `KBox`.
    pub struct KBox<T>(Box<T>);

    impl<T> KBox<T> {
        /// Allocates memory.
        pub fn new_uninit(_flags: Flags) -> Result<KBox<MaybeUninit<T>>> {
            if bindings::world::fails("kmalloc") {
                return Err(ENOMEM);
            }
            Ok(KBox(Box::new(MaybeUninit::uninit())))
        }

        /// Writes a value to the memory.
        pub fn write(mut memory: KBox<MaybeUninit<T>>, value: T) -> Self {
            memory.0.write(value);
            // SAFETY: The value was written above. `MaybeUninit` has the layout of the value.
            unsafe { Self::from_raw(KBox::into_raw(memory).cast()) }
        }

        /// Gives the memory up.
        pub fn into_raw(me: Self) -> *mut T {
            Box::into_raw(me.0)
        }

        /// Takes memory over.
        ///
        /// # Safety
        ///
        /// `ptr` comes from [`into_raw`](Self::into_raw), and has a valid value.
        pub unsafe fn from_raw(ptr: *mut T) -> Self {
            // SAFETY: The caller promises this.
            Self(unsafe { Box::from_raw(ptr) })
        }
    }

    impl<T> Deref for KBox<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for KBox<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    /// `gfp_t`.
    #[derive(Clone, Copy)]
    pub struct Flags(u32);

    impl Flags {
        /// The C value.
        pub fn as_raw(self) -> u32 {
            self.0
        }
    }

    /// Flags by name.
    pub mod flags {
        /// May sleep.
        pub const GFP_KERNEL: super::Flags = super::Flags(bindings::GFP_KERNEL);
    }
}

/// Errors.
pub mod error {
    use crate::ffi::c_int;

    /// An errno.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Error(c_int);

    /// Of the kernel.
    pub type Result<T = (), E = Error> = core::result::Result<T, E>;

    /// Errnos by name.
    pub mod code {
        use super::Error;

        pub const ENOENT: Error = Error(2);
        pub const EAGAIN: Error = Error(11);
        pub const ENOMEM: Error = Error(12);
        pub const EBUSY: Error = Error(16);
        pub const EINVAL: Error = Error(22);
        pub const ENOSPC: Error = Error(28);
    }

    /// Negative means failed.
    pub fn to_result(err: c_int) -> Result {
        if err < 0 {
            Err(Error(-err))
        } else {
            Ok(())
        }
    }

    /// `IS_ERR()` and `PTR_ERR()`.
    pub fn from_err_ptr<T>(ptr: *mut T) -> Result<*mut T> {
        let value = ptr as isize;
        if (-4095..0).contains(&value) {
            Err(Error(-value as c_int))
        } else {
            Ok(ptr)
        }
    }
}

/// Files.
pub mod fs {
    /// Open files.
    pub mod file {
        use crate::types::Opaque;

        /// `struct file`.
        #[repr(transparent)]
        pub struct LocalFile(Opaque<bindings::file>);

        impl LocalFile {
            /// Makes a Rust reference from a C pointer.
            ///
            /// # Safety
            ///
            /// `ptr` is valid for `'a`.
            pub unsafe fn from_raw_file<'a>(ptr: *const bindings::file) -> &'a Self {
                // SAFETY: Transparent; the caller promises the rest.
                unsafe { &*ptr.cast() }
            }

            /// The C object.
            pub fn as_ptr(&self) -> *mut bindings::file {
                self.0.get()
            }
        }
    }
}

/// Interrupts.
pub mod interrupt {
    use crate::types::NotThreadSafe;

    /// Proof that interrupts are disabled.
    pub struct LocalInterruptDisabled(NotThreadSafe);

    impl LocalInterruptDisabled {
        /// # Safety
        ///
        /// Interrupts are disabled for `'a`.
        pub unsafe fn assume_disabled<'a>() -> &'a Self {
            const ASSUME_DISABLED: &LocalInterruptDisabled = &LocalInterruptDisabled(NotThreadSafe);

            ASSUME_DISABLED
        }
    }
}

/// The processor.
pub mod processor {
    /// One turn of a loop that waits.
    pub fn cpu_relax() {
        // SAFETY: No preconditions.
        unsafe { bindings::cpu_relax() }
    }
}

/// References that are counted.
pub mod sync {
    /// Memory barriers.
    pub mod barrier {
        /// All accesses.
        pub struct Full;

        /// Loads.
        pub struct Read;

        /// What a barrier orders.
        pub trait MemoryBarrier {
            /// Orders it.
            fn run();
        }

        impl MemoryBarrier for Full {
            fn run() {
                bindings::smp_mb();
            }
        }

        // All tasks are on one thread.
        impl MemoryBarrier for Read {
            fn run() {}
        }

        /// `smp_mb()` and `smp_rmb()`.
        pub fn smp_mb<T: MemoryBarrier>(_: T) {
            T::run();
        }
    }

    /// `ARef`.
    pub mod aref {
        use core::{mem::ManuallyDrop, ops::Deref, ptr::NonNull};

        /// # Safety
        ///
        /// As in the kernel.
        pub unsafe trait AlwaysRefCounted {
            /// Takes a reference.
            fn inc_ref(&self);
            /// Drops one.
            ///
            /// # Safety
            ///
            /// The caller has one.
            unsafe fn dec_ref(obj: NonNull<Self>);
        }

        /// A reference that is owned.
        pub struct ARef<T: AlwaysRefCounted>(NonNull<T>);

        impl<T: AlwaysRefCounted> ARef<T> {
            /// # Safety
            ///
            /// The caller hands over a reference.
            pub unsafe fn from_raw(ptr: NonNull<T>) -> Self {
                Self(ptr)
            }

            /// Gives the reference up to C.
            pub fn into_raw(me: Self) -> NonNull<T> {
                ManuallyDrop::new(me).0
            }
        }

        impl<T: AlwaysRefCounted> Deref for ARef<T> {
            type Target = T;

            fn deref(&self) -> &T {
                // SAFETY: The object owns a reference.
                unsafe { self.0.as_ref() }
            }
        }

        impl<T: AlwaysRefCounted> From<&T> for ARef<T> {
            fn from(object: &T) -> Self {
                object.inc_ref();
                Self(NonNull::from(object))
            }
        }

        impl<T: AlwaysRefCounted> Drop for ARef<T> {
            fn drop(&mut self) {
                // SAFETY: The object owns a reference.
                unsafe { T::dec_ref(self.0) };
            }
        }
    }
}

/// Time.
pub mod time {
    use core::{marker::PhantomData, ops};

    /// A clock.
    pub struct Monotonic;

    /// A time.
    #[derive(Clone, Copy)]
    pub struct Instant<C>(i64, PhantomData<C>);

    impl<C> Instant<C> {
        /// Now.
        pub fn now() -> Self {
            // SAFETY: No preconditions.
            Self(unsafe { bindings::ktime_get() }, PhantomData)
        }

        /// Since then.
        pub fn elapsed(&self) -> Delta {
            Delta(Self::now().0 - self.0)
        }
    }

    /// A span of time.
    #[derive(Clone, Copy, PartialEq, PartialOrd, Eq, Ord)]
    pub struct Delta(i64);

    impl Delta {
        /// None.
        pub const ZERO: Self = Self(0);

        /// So many us.
        pub const fn from_micros(micros: i64) -> Self {
            Self(micros * 1_000)
        }

        /// So many ms.
        pub const fn from_millis(millis: i64) -> Self {
            Self(millis * 1_000_000)
        }
    }

    impl ops::Add for Delta {
        type Output = Self;

        fn add(self, other: Self) -> Self {
            Self(self.0 + other.0)
        }
    }

    impl ops::SubAssign for Delta {
        fn sub_assign(&mut self, other: Self) {
            self.0 -= other.0;
        }
    }
}

/// Helper types.
pub mod types {
    use core::{cell::UnsafeCell, marker::PhantomData, mem::MaybeUninit};

    /// A C object that Rust knows nothing of.
    #[repr(transparent)]
    pub struct Opaque<T>(UnsafeCell<MaybeUninit<T>>);

    impl<T> Opaque<T> {
        /// The C object.
        pub const fn get(&self) -> *mut T {
            UnsafeCell::get(&self.0).cast::<T>()
        }
    }

    /// What stays with its task.
    pub type NotThreadSafe = PhantomData<*mut ()>;

    /// The value of the type.
    #[allow(non_upper_case_globals)]
    pub const NotThreadSafe: NotThreadSafe = PhantomData;
}

/// Trace events.
pub mod tracepoint {
    /// Declares trace events, which the simulated C side has.
    macro_rules! declare_trace {
        ($($(#[$attr:meta])* $pub:vis unsafe fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {$(
            $(#[$attr])*
            $pub unsafe fn $name($($arg: $type),*) {
                $crate::tracepoint::call!($name, $($arg),*)
            }
        )*};
    }
    macro_rules! call {
        (mm_khugepaged_collapse_file, $($arg:expr),*) => {
            // SAFETY: By the safety requirements of this function.
            unsafe { $crate::bindings::trace_mm_khugepaged_collapse_file($($arg),*) }
        };
    }

    pub(crate) use {call, declare_trace};
}

/// Warns each time: once is enough for a test to fail.
#[macro_export]
macro_rules! do_once_lite {
    ($($body:tt)*) => { $($body)* };
}

/// `WARN_ON()`.
#[macro_export]
macro_rules! warn_on {
    ($cond:expr) => {
        if $cond {
            $crate::bindings::world::violation(concat!("WARN_ON(", stringify!($cond), ")"));
        }
    };
}
