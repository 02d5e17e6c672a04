/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Each access passes its address, and whether a lock protects it, to the
 * simulation. The simulation reports accesses to freed nodes, and lets other
 * tasks run between the steps of a lockless walk.
 */
#ifndef _SIM_RCUPDATE_H
#define _SIM_RCUPDATE_H

#include <stdbool.h>

struct rcu_head {
	void *next;
	void (*func)(struct rcu_head *head);
};

void sim_rcu_read_lock(void);
void sim_rcu_read_unlock(void);
void sim_rcu_read(const void *where, bool protected);
void sim_rcu_assign(const void *where);
void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head));

#define rcu_read_lock()		sim_rcu_read_lock()
#define rcu_read_unlock()	sim_rcu_read_unlock()

#define rcu_dereference_check(p, c)	({ sim_rcu_read(&(p), (c)); (p); })
#define rcu_dereference_protected(p, c)	({ sim_rcu_read(&(p), (c)); (p); })
#define rcu_dereference_raw(p)		({ sim_rcu_read(&(p), true); (p); })
#define rcu_assign_pointer(p, v)	do { sim_rcu_assign(&(p)); (p) = (v); } while (0)
#define RCU_INIT_POINTER(p, v)		do { (p) = (v); } while (0)

#endif /* _SIM_RCUPDATE_H */
