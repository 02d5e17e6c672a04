/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/rust-page-cache-map: what the page cache holds of a file, and which VMAs map it.
 *
 * Both ioctls take a struct page_cache_map_request and fill an array that it points
 * to. The caller needs CAP_SYS_ADMIN, because addresses of other processes are reported,
 * and must have the file open for reading.
 *
 * The answer is a snapshot. PAGE_CACHE_MAP_ENTRIES is consistent for one aligned range
 * that a PMD maps, if that fits an array of PAGE_CACHE_MAP_BATCH entries.
 *
 * A file of overlayfs has neither pages nor VMAs. The file below it has them.
 *
 * Errors: EPERM without the capability; EBADF for a file descriptor that is not open for
 * reading; EINVAL if the file is not regular, the start is greater than the end, the end is
 * past the largest file, there is no capacity, or a field is set that must be 0; E2BIG
 * for a range of more than PAGE_CACHE_MAP_MAX_PAGES; EFAULT for bad addresses; ENOMEM.
 * After an error the array may have been written to, but not the request.
 *
 * This is the interface of a sample. It may change at any time. The types and numbers in
 * rust_page_cache_map.rs must be the same.
 */
#ifndef _SAMPLES_RUST_PAGE_CACHE_MAP_H
#define _SAMPLES_RUST_PAGE_CACHE_MAP_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Limits of one request: pages in the range, VMAs, entries that are read at once. */
#define PAGE_CACHE_MAP_MAX_PAGES	0x100000
#define PAGE_CACHE_MAP_MAX_VMAS		1024
#define PAGE_CACHE_MAP_BATCH		128

/* Flags of an answer. */

/* The answer does not cover all of the range. */
#define PAGE_CACHE_MAP_MORE		0x1
/* The file is shmem: values are swap entries. */
#define PAGE_CACHE_MAP_SHMEM		0x2

/**
 * struct page_cache_map_request - a question, and how much was answered
 * @fd: the file
 * @flags: must be 0; then PAGE_CACHE_MAP_MORE, PAGE_CACHE_MAP_SHMEM
 * @start: index of the first page; PAGE_CACHE_MAP_ENTRIES sets it to the first page that
 *	is not in the answer, where another request can continue
 * @end: index after the last page
 * @buffer: address of the array
 * @capacity: elements that it has room for
 * @count: ignored; then elements that were written
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
/* A number: a swap entry of shmem, the shadow of a reclaimed folio, or a DAX entry. */
#define PAGE_CACHE_MAP_VALUE		1
/* A folio. */
#define PAGE_CACHE_MAP_FOLIO		2

/* Flags of a folio. */
#define PAGE_CACHE_MAP_LOCKED		0x1
#define PAGE_CACHE_MAP_UPTODATE		0x2
#define PAGE_CACHE_MAP_DIRTY		0x4
#define PAGE_CACHE_MAP_WRITEBACK	0x8

/**
 * struct page_cache_map_entry - what the page cache has for some pages
 * @index: index of the first page
 * @nr_pages: number of pages
 * @value: the number, if it is one
 * @kind: PAGE_CACHE_MAP_HOLE, PAGE_CACHE_MAP_VALUE or PAGE_CACHE_MAP_FOLIO
 * @order: base-2 logarithm of @nr_pages; 0 for a hole
 * @flags: of a folio
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

/* What is reported to a userfaultfd: UFFDIO_REGISTER_MODE_*. */
#define PAGE_CACHE_MAP_UFFD_MISSING	0x1
#define PAGE_CACHE_MAP_UFFD_WP		0x2
#define PAGE_CACHE_MAP_UFFD_MINOR	0x4
#define PAGE_CACHE_MAP_UFFD_RWP		0x8

/**
 * struct page_cache_map_vma - a VMA that maps a page of the range
 * @start: address of the first byte, in some process
 * @end: address after the last byte
 * @index: index in the file of the first page
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

/* What the page cache holds. */
#define PAGE_CACHE_MAP_ENTRIES	_IOWR('|', 0x90, struct page_cache_map_request)
/* The VMAs that map it. PAGE_CACHE_MAP_MORE is set if there was too little room. */
#define PAGE_CACHE_MAP_VMAS	_IOWR('|', 0x91, struct page_cache_map_request)

#endif /* _SAMPLES_RUST_PAGE_CACHE_MAP_H */
