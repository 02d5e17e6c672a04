/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _SIM_LOCKDEP_H
#define _SIM_LOCKDEP_H

#include <linux/spinlock.h>

struct lock_class_key {
	unsigned int key;
};

#define lockdep_set_class(lock, key)	do { (void)(lock); (void)(key); } while (0)
#define lockdep_is_held(lock)		sim_lock_is_held(lock)

#endif /* _SIM_LOCKDEP_H */
