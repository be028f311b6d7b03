/* list.h - intrusive doubly linked list with a sentinel head. A node that is in no list points at itself. */
#pragma once

#include "base/defs.h"

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}
static inline bool list_is_empty(const struct list *l)
{
	return l->next == l;
}
static inline void list_insert_(struct list *n, struct list *prev, struct list *next)
{
	n->prev = prev, n->next = next;
	prev->next = n, next->prev = n;
}
static inline void list_push_back(struct list *head, struct list *n)
{
	list_insert_(n, head->prev, head);
}
static inline void list_push_front(struct list *head, struct list *n)
{
	list_insert_(n, head, head->next);
}
/** Unlinks n; harmless when n is in no list. */
static inline void list_remove(struct list *n)
{
	n->prev->next = n->next, n->next->prev = n->prev;
	list_init(n);
}
/** The first node, unlinked, or NULL. */
static inline struct list *list_pop_front(struct list *head)
{
	struct list *n = head->next;
	if (n == head)
		return NULL;
	list_remove(n);
	return n;
}
/** Moves every node of src to the end of dst; src is empty after. */
static inline void list_splice_back(struct list *dst, struct list *src)
{
	if (list_is_empty(src))
		return;
	struct list *first = src->next, *last = src->prev, *tail = dst->prev;
	tail->next = first, first->prev = tail;
	last->next = dst, dst->prev = last;
	list_init(src);
}

#define list_entry(node, type, member) container_of(node, type, member)
#define list_for_each(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)
/** Safe against removal of `it`. */
#define list_for_each_safe(it, head)                                              \
	for (struct list *it = (head)->next, *it##_next = it->next; it != (head); \
	     it = it##_next, it##_next = it->next)
