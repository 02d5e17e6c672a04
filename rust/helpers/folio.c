// SPDX-License-Identifier: GPL-2.0

#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/lockdep.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/page-flags.h>
#include <linux/pagemap.h>
#include <linux/vmstat.h>

#include "../../mm/internal.h"

__rust_helper void rust_helper_folio_get(struct folio *folio)
{
	folio_get(folio);
}

__rust_helper void rust_helper_folio_put(struct folio *folio)
{
	folio_put(folio);
}

__rust_helper void rust_helper_folio_ref_add(struct folio *folio, int refs)
{
	folio_ref_add(folio, refs);
}

__rust_helper void rust_helper_folio_ref_sub(struct folio *folio, int refs)
{
	folio_ref_sub(folio, refs);
}

__rust_helper int rust_helper_folio_ref_count(const struct folio *folio)
{
	return folio_ref_count(folio);
}

__rust_helper bool rust_helper_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

__rust_helper void rust_helper___folio_set_locked(struct folio *folio)
{
	__folio_set_locked(folio);
}

__rust_helper void rust_helper___folio_set_swapbacked(struct folio *folio)
{
	__folio_set_swapbacked(folio);
}

__rust_helper bool rust_helper_folio_test_locked(const struct folio *folio)
{
	return folio_test_locked(folio);
}

__rust_helper bool rust_helper_folio_test_waiters(const struct folio *folio)
{
	return folio_test_waiters(folio);
}

__rust_helper bool rust_helper_folio_test_lru(const struct folio *folio)
{
	return folio_test_lru(folio);
}

__rust_helper int rust_helper_folio_has_private(const struct folio *folio)
{
	return folio_has_private(folio);
}

__rust_helper bool rust_helper_folio_test_uptodate(const struct folio *folio)
{
	return folio_test_uptodate(folio);
}

__rust_helper bool rust_helper_folio_test_dirty(const struct folio *folio)
{
	return folio_test_dirty(folio);
}

__rust_helper bool rust_helper_folio_test_writeback(const struct folio *folio)
{
	return folio_test_writeback(folio);
}

__rust_helper void rust_helper_folio_mark_uptodate(struct folio *folio)
{
	folio_mark_uptodate(folio);
}

__rust_helper bool rust_helper_folio_mapping_is(const struct folio *folio,
						const struct address_space *mapping)
{
	return folio->mapping == mapping;
}

__rust_helper unsigned int rust_helper_folio_order(const struct folio *folio)
{
	return folio_order(folio);
}

__rust_helper unsigned long rust_helper_folio_nr_pages(const struct folio *folio)
{
	return folio_nr_pages(folio);
}

__rust_helper unsigned long rust_helper_folio_pfn(const struct folio *folio)
{
	return folio_pfn(folio);
}

__rust_helper struct page *rust_helper_folio_page(struct folio *folio, unsigned long n)
{
	return folio_page(folio, n);
}

__rust_helper bool rust_helper_folio_mapped(const struct folio *folio)
{
	return folio_mapped(folio);
}

__rust_helper pgoff_t rust_helper_folio_index(const struct folio *folio)
{
	return folio->index;
}

__rust_helper void rust_helper_folio_set_mapping(struct folio *folio,
						 struct address_space *mapping, pgoff_t index)
{
	folio->index = index;
	folio->mapping = mapping;
}

__rust_helper void rust_helper_folio_clear_mapping(struct folio *folio)
{
	folio->mapping = NULL;
}

__rust_helper struct list_head *rust_helper_folio_lru(struct folio *folio)
{
	return &folio->lru;
}

__rust_helper struct folio *rust_helper_lru_folio(struct list_head *lru)
{
	return list_entry(lru, struct folio, lru);
}

__rust_helper void rust_helper_list_del(struct list_head *entry)
{
	list_del(entry);
}

__rust_helper void rust_helper_lockdep_assert_irqs_enabled(void)
{
	lockdep_assert_irqs_enabled();
}

__rust_helper void rust_helper_clear_highpage(struct page *page)
{
	clear_highpage(page);
}

__rust_helper int rust_helper_copy_mc_highpage(struct page *to, struct page *from)
{
	return copy_mc_highpage(to, from);
}

#ifndef CONFIG_MEMCG
__rust_helper void rust_helper_lruvec_stat_mod_folio(struct folio *folio,
						     enum node_stat_item idx, int val)
{
	lruvec_stat_mod_folio(folio, idx, val);
}
#endif

#ifndef CONFIG_ARCH_WANT_BATCHED_UNMAP_TLB_FLUSH
__rust_helper void rust_helper_try_to_unmap_flush(void)
{
	try_to_unmap_flush();
}
#endif
