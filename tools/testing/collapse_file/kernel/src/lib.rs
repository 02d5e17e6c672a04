// SPDX-License-Identifier: GPL-2.0

//! The part of the `kernel` crate that `mm/collapse_file.rs` needs.
//!
//! The tested modules are included by path. The other types have the interface of the originals and
//! only the functions that the tested modules call.

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
        /// Converts a C pointer to a Rust reference.
        ///
        /// # Safety
        ///
        /// `ptr` must be valid for `'a`.
        pub unsafe fn from_raw<'a>(ptr: *const bindings::mm_struct) -> &'a Self {
            // SAFETY: The type is transparent, and `ptr` is valid by the safety requirements.
            unsafe { &*ptr.cast() }
        }

        /// Returns a pointer to the C object.
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
        /// Allocates memory without initializing it.
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

        /// Returns the memory without freeing it.
        pub fn into_raw(me: Self) -> *mut T {
            Box::into_raw(me.0)
        }

        /// Takes ownership of memory.
        ///
        /// # Safety
        ///
        /// `ptr` must come from [`into_raw`](Self::into_raw) and point to a valid value.
        pub unsafe fn from_raw(ptr: *mut T) -> Self {
            // SAFETY: `ptr` comes from `Box::into_raw()` by the safety requirements.
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
        /// Returns the C value.
        pub fn as_raw(self) -> u32 {
            self.0
        }
    }

    /// Flags by name.
    pub mod flags {
        /// The flags of an allocation that may sleep.
        pub const GFP_KERNEL: super::Flags = super::Flags(bindings::GFP_KERNEL);
    }
}

/// Errors.
pub mod error {
    use crate::ffi::c_int;

    /// An errno.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Error(c_int);

    /// `Result` with a kernel error.
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

    /// Converts a return value of a C function, where a negative value is an error.
    pub fn to_result(err: c_int) -> Result {
        if err < 0 {
            Err(Error(-err))
        } else {
            Ok(())
        }
    }

    /// Converts an error pointer, as `IS_ERR()` and `PTR_ERR()` do.
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
            /// Converts a C pointer to a Rust reference.
            ///
            /// # Safety
            ///
            /// `ptr` must be valid for `'a`.
            pub unsafe fn from_raw_file<'a>(ptr: *const bindings::file) -> &'a Self {
                // SAFETY: The type is transparent, and `ptr` is valid by the safety requirements.
                unsafe { &*ptr.cast() }
            }

            /// Returns a pointer to the C object.
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
        /// Returns a proof without a check.
        ///
        /// # Safety
        ///
        /// Interrupts must be disabled for `'a`.
        pub unsafe fn assume_disabled<'a>() -> &'a Self {
            const ASSUME_DISABLED: &LocalInterruptDisabled = &LocalInterruptDisabled(NotThreadSafe);

            ASSUME_DISABLED
        }
    }
}

/// The processor.
pub mod processor {
    /// Executes one turn of a loop that waits.
    pub fn cpu_relax() {
        // SAFETY: The function has no requirements.
        unsafe { bindings::cpu_relax() }
    }
}

/// Memory barriers and reference counts.
pub mod sync {
    /// Memory barriers.
    pub mod barrier {
        /// Orders all accesses.
        pub struct Full;

        /// Orders loads.
        pub struct Read;

        /// A kind of barrier.
        pub trait MemoryBarrier {
            /// Executes the barrier.
            fn run();
        }

        impl MemoryBarrier for Full {
            fn run() {
                bindings::smp_mb();
            }
        }

        // All tasks run on one thread, so loads need no barrier.
        impl MemoryBarrier for Read {
            fn run() {}
        }

        /// Executes `smp_mb()` or `smp_rmb()`.
        pub fn smp_mb<T: MemoryBarrier>(_: T) {
            T::run();
        }
    }

    /// `ARef`.
    pub mod aref {
        use core::{mem::ManuallyDrop, ops::Deref, ptr::NonNull};

        /// A type with a reference count.
        ///
        /// # Safety
        ///
        /// As for the trait in the kernel.
        pub unsafe trait AlwaysRefCounted {
            /// Takes a reference.
            fn inc_ref(&self);
            /// Drops a reference.
            ///
            /// # Safety
            ///
            /// The caller must own a reference.
            unsafe fn dec_ref(obj: NonNull<Self>);
        }

        /// An owned reference.
        pub struct ARef<T: AlwaysRefCounted>(NonNull<T>);

        impl<T: AlwaysRefCounted> ARef<T> {
            /// Takes ownership of a reference.
            ///
            /// # Safety
            ///
            /// The caller must own a reference, which this object takes over.
            pub unsafe fn from_raw(ptr: NonNull<T>) -> Self {
                Self(ptr)
            }

            /// Passes the reference to C.
            pub fn into_raw(me: Self) -> NonNull<T> {
                ManuallyDrop::new(me).0
            }
        }

        impl<T: AlwaysRefCounted> Deref for ARef<T> {
            type Target = T;

            fn deref(&self) -> &T {
                // SAFETY: This `ARef` owns a reference, so the object is valid.
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
                // SAFETY: This `ARef` owns the reference and does not use the object after this.
                unsafe { T::dec_ref(self.0) };
            }
        }
    }
}

/// Time.
pub mod time {
    use core::{marker::PhantomData, ops};

    /// The clock of `ktime_get()`.
    pub struct Monotonic;

    /// A point in time.
    #[derive(Clone, Copy)]
    pub struct Instant<C>(i64, PhantomData<C>);

    impl<C> Instant<C> {
        /// Returns the current time.
        pub fn now() -> Self {
            // SAFETY: The function has no requirements.
            Self(unsafe { bindings::ktime_get() }, PhantomData)
        }

        /// Returns the time since this point.
        pub fn elapsed(&self) -> Delta {
            Delta(Self::now().0 - self.0)
        }
    }

    /// A span of time.
    #[derive(Clone, Copy, PartialEq, PartialOrd, Eq, Ord)]
    pub struct Delta(i64);

    impl Delta {
        /// A span of 0 ns.
        pub const ZERO: Self = Self(0);

        /// Converts a number of microseconds.
        pub const fn from_micros(micros: i64) -> Self {
            Self(micros * 1_000)
        }

        /// Converts a number of milliseconds.
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

    /// A C object that Rust does not access directly.
    #[repr(transparent)]
    pub struct Opaque<T>(UnsafeCell<MaybeUninit<T>>);

    impl<T> Opaque<T> {
        /// Returns a pointer to the C object.
        pub const fn get(&self) -> *mut T {
            UnsafeCell::get(&self.0).cast::<T>()
        }
    }

    /// A marker for types that must not move to another task.
    pub type NotThreadSafe = PhantomData<*mut ()>;

    /// The value of the marker.
    #[allow(non_upper_case_globals)]
    pub const NotThreadSafe: NotThreadSafe = PhantomData;
}

/// Trace events.
pub mod tracepoint {
    /// Defines functions that call the trace events of the simulation.
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
            // SAFETY: By the safety requirements of the trace event.
            unsafe { $crate::bindings::trace_mm_khugepaged_collapse_file($($arg),*) }
        };
    }

    pub(crate) use {call, declare_trace};
}

/// Runs the body each time, because one warning is enough to fail a test.
#[macro_export]
macro_rules! do_once_lite {
    ($($body:tt)*) => { $($body)* };
}

/// Records a violation if the condition holds.
#[macro_export]
macro_rules! warn_on {
    ($cond:expr) => {
        if $cond {
            $crate::bindings::world::violation(concat!("WARN_ON(", stringify!($cond), ")"));
        }
    };
}
