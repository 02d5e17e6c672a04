// SPDX-License-Identifier: GPL-2.0

#include <linux/dax.h>
#include <linux/fs.h>
#include <linux/pagemap.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/userfaultfd_k.h>

#include "../../mm/internal.h"
#include "../../mm/khugepaged.h"

__rust_helper struct address_space *rust_helper_file_mapping(const struct file *file)
{
	/* Some file systems set it when the file is mapped. */
	return READ_ONCE(file->f_mapping);
}

__rust_helper bool rust_helper_file_is_regular(const struct file *file)
{
	return S_ISREG(file_inode(file)->i_mode);
}

__rust_helper struct file_ra_state *rust_helper_file_ra(struct file *file)
{
	return &file->f_ra;
}

__rust_helper struct inode *rust_helper_mapping_host(const struct address_space *mapping)
{
	return mapping->host;
}

__rust_helper struct xarray *rust_helper_mapping_i_pages(struct address_space *mapping)
{
	return &mapping->i_pages;
}

__rust_helper void rust_helper_mapping_sub_nrpages(struct address_space *mapping,
						   unsigned long nr)
{
	mapping->nrpages -= nr;
}

__rust_helper void rust_helper_mapping_set_update(struct xa_state *xas,
						  struct address_space *mapping)
{
	mapping_set_update(xas, mapping);
}

__rust_helper bool rust_helper_mapping_release_always(const struct address_space *mapping)
{
	return mapping_release_always(mapping);
}

__rust_helper bool rust_helper_mapping_pmd_folio_support(const struct address_space *mapping)
{
	return mapping_pmd_folio_support(mapping);
}

/* Directories, and files on persistent memory, have nothing to cache. */
__rust_helper bool rust_helper_mapping_can_read_folios(const struct address_space *mapping)
{
	return mapping->a_ops->read_folio || mapping->a_ops->readahead;
}

__rust_helper void rust_helper_i_mmap_lock_read(struct address_space *mapping)
{
	i_mmap_lock_read(mapping);
}

__rust_helper void rust_helper_i_mmap_unlock_read(struct address_space *mapping)
{
	i_mmap_unlock_read(mapping);
}

__rust_helper void rust_helper_cond_resched(void)
{
	cond_resched();
}

__rust_helper bool rust_helper_fatal_signal_pending(struct task_struct *task)
{
	return fatal_signal_pending(task);
}

__rust_helper bool rust_helper_inode_is_open_for_write(const struct inode *inode)
{
	return inode_is_open_for_write(inode);
}

__rust_helper void rust_helper_page_cache_sync_readahead(struct address_space *mapping,
							 struct file_ra_state *ra,
							 struct file *file, pgoff_t index,
							 unsigned long req_count)
{
	page_cache_sync_readahead(mapping, ra, file, index, req_count);
}

__rust_helper struct folio *rust_helper_filemap_lock_folio(struct address_space *mapping,
							   pgoff_t index)
{
	return filemap_lock_folio(mapping, index);
}

__rust_helper bool rust_helper_userfaultfd_missing(struct vm_area_struct *vma)
{
	return userfaultfd_missing(vma);
}

__rust_helper int rust_helper_read_userfaultfd_register_seq(void)
{
	return read_userfaultfd_register_seq();
}

__rust_helper bool rust_helper_userfaultfd_wp(struct vm_area_struct *vma)
{
	return userfaultfd_wp(vma);
}

__rust_helper bool rust_helper_userfaultfd_minor(struct vm_area_struct *vma)
{
	return userfaultfd_minor(vma);
}

__rust_helper bool rust_helper_userfaultfd_rwp(struct vm_area_struct *vma)
{
	return userfaultfd_rwp(vma);
}

__rust_helper unsigned long rust_helper_vma_vm_start(const struct vm_area_struct *vma)
{
	return vma->vm_start;
}

__rust_helper unsigned long rust_helper_vma_vm_end(const struct vm_area_struct *vma)
{
	return vma->vm_end;
}

__rust_helper pgoff_t rust_helper_vma_start_pgoff(const struct vm_area_struct *vma)
{
	return vma_start_pgoff(vma);
}

#ifdef CONFIG_COLLAPSE_FILE_STATS
__rust_helper u64 rust_helper_collapse_file_hold_begin(void)
{
	return collapse_file_hold_begin();
}

__rust_helper void rust_helper_collapse_file_hold_end(enum collapse_file_impl impl, u64 begin)
{
	collapse_file_hold_end(impl, begin);
}
#endif
