/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/rust-page-cache-map reports the page cache contents of a file and the VMAs that
 * map it.
 *
 * Both ioctls take a struct page_cache_map_request and fill an array that it points
 * to. The caller needs CAP_SYS_ADMIN, because the ioctls report addresses of other
 * processes. The caller must also have the file open for reading.
 *
 * The answer is a snapshot. PAGE_CACHE_MAP_ENTRIES is consistent for one aligned,
 * PMD-sized range, if its entries fit PAGE_CACHE_MAP_BATCH.
 *
 * An overlayfs file has neither pages nor VMAs. The underlying file has them.
 *
 * Errors:
 *	EPERM	The caller does not have the capability.
 *	EBADF	The file descriptor is not open for reading.
 *	EINVAL	The file is not regular, the start is greater than the end, the end is past
 *		the largest file, the capacity is 0, or a field is set that must be 0.
 *	E2BIG	The range has more than PAGE_CACHE_MAP_MAX_PAGES pages.
 *	EFAULT	An address is bad.
 *	ENOMEM	There is no memory.
 * After an error the array may be overwritten. The request is not.
 *
 * This is the interface of a sample. It may change at any time. The types and numbers in
 * rust_page_cache_map.rs must be the same.
 */
#ifndef _SAMPLES_RUST_PAGE_CACHE_MAP_H
#define _SAMPLES_RUST_PAGE_CACHE_MAP_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Limits of one request: pages in the range, VMAs, entries in one snapshot. */
#define PAGE_CACHE_MAP_MAX_PAGES	0x100000
#define PAGE_CACHE_MAP_MAX_VMAS		1024
#define PAGE_CACHE_MAP_BATCH		128

/* Flags in an answer. */

/* The answer does not cover all of the range. */
#define PAGE_CACHE_MAP_MORE		0x1
/* The file is shmem: values are swap entries. */
#define PAGE_CACHE_MAP_SHMEM		0x2

/**
 * struct page_cache_map_request - a request and its answer
 * @fd: descriptor of the file
 * @flags: must be 0 in the request; PAGE_CACHE_MAP_MORE and PAGE_CACHE_MAP_SHMEM in the
 *	answer
 * @start: index of the first page; PAGE_CACHE_MAP_ENTRIES sets it to the first page that
 *	is not in the answer, where another request can continue
 * @end: index after the last page
 * @buffer: address of the array
 * @capacity: number of elements that the array has room for
 * @count: ignored in the request; number of elements written in the answer
 * @reserved: must be 0
 *
 * Indices count pages from the beginning of the file.
 */
struct page_cache_map_request {
	__s32 fd;
	__u32 flags;
	__u64 start;
	__u64 end;
	__u64 buffer;
	__u32 capacity;
	__u32 count;
	__u64 reserved[2];
};

/* Kinds of entries. */

/* No page. */
#define PAGE_CACHE_MAP_HOLE		0
/* A value: a swap entry of shmem, the shadow of a reclaimed folio, or a DAX entry. */
#define PAGE_CACHE_MAP_VALUE		1
/* A folio. */
#define PAGE_CACHE_MAP_FOLIO		2

/* Flags of a folio, when the snapshot was taken. */
#define PAGE_CACHE_MAP_LOCKED		0x1
#define PAGE_CACHE_MAP_UPTODATE		0x2
#define PAGE_CACHE_MAP_DIRTY		0x4
#define PAGE_CACHE_MAP_WRITEBACK	0x8

/**
 * struct page_cache_map_entry - an entry of the page cache
 * @index: index of the first page
 * @nr_pages: number of pages
 * @value: the value of a PAGE_CACHE_MAP_VALUE entry, or 0
 * @kind: PAGE_CACHE_MAP_HOLE, PAGE_CACHE_MAP_VALUE or PAGE_CACHE_MAP_FOLIO
 * @order: base-2 logarithm of @nr_pages; 0 for a hole
 * @flags: flags of a PAGE_CACHE_MAP_FOLIO entry, or 0
 *
 * Entries are in index order and without gaps. A folio that reaches beyond the range is
 * reported as a whole. A hole may be reported in parts.
 */
struct page_cache_map_entry {
	__u64 index;
	__u64 nr_pages;
	__u64 value;
	__u16 kind;
	__u16 order;
	__u32 flags;
};

/* Modes of a userfaultfd registration: UFFDIO_REGISTER_MODE_*. */
#define PAGE_CACHE_MAP_UFFD_MISSING	0x1
#define PAGE_CACHE_MAP_UFFD_WP		0x2
#define PAGE_CACHE_MAP_UFFD_MINOR	0x4
#define PAGE_CACHE_MAP_UFFD_RWP		0x8

/**
 * struct page_cache_map_vma - a VMA that maps a page of the range
 * @start: address of the first byte, in some process
 * @end: address after the last byte
 * @index: index of the first page in the file
 * @userfaultfd: PAGE_CACHE_MAP_UFFD_*
 * @reserved: 0
 *
 * VMAs are in no particular order.
 */
struct page_cache_map_vma {
	__u64 start;
	__u64 end;
	__u64 index;
	__u32 userfaultfd;
	__u32 reserved;
};

/* Read the entries of the page cache. */
#define PAGE_CACHE_MAP_ENTRIES	_IOWR('|', 0x90, struct page_cache_map_request)
/* Read the VMAs that map the range. PAGE_CACHE_MAP_MORE is set if they did not all fit. */
#define PAGE_CACHE_MAP_VMAS	_IOWR('|', 0x91, struct page_cache_map_request)

#endif /* _SAMPLES_RUST_PAGE_CACHE_MAP_H */
