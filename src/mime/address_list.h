/* address_list.h - the addresses of From, To, Cc and their like (RFC 5322 section 3.4): mailboxes and groups,
 * with the forms that are obsolete or wrong but occur and are clear: empty list elements, source routes,
 * dots, brackets and addresses in display names without quotes, dots at the edges of local parts, a comment
 * as the name. Names are decoded (RFC 2047). */
#pragma once

#include "base/arena.h"
#include "mime/header_write.h"

struct address_mailbox {
	str_t name;   /* UTF-8; p NULL: none */
	str_t local;  /* without quotes; UTF-8 */
	str_t domain; /* as written */
};
struct address {
	bool is_group;
	struct address_mailbox box;	/* not for groups, but for the name */
	struct address_mailbox *member; /* of a group */
	size_t n_members;
};
struct address_list {
	struct arena arena; /* owns all */
	struct address *v;
	size_t n;
};

/** value: raw or unfolded. -1 ERR_INVALID with what is wrong and at which byte; out needs no fini then. No
 * address at all is an empty list. */
MUST_CHECK int address_list_parse(str_t value, struct address_list *out);
/** The same without groups (From, Sender). */
MUST_CHECK int address_list_parse_mailboxes(str_t value, struct address_list *out);
void address_list_fini(struct address_list *l);
/** local@domain, the local part quoted where it must be. */
void address_add_email(const struct address_mailbox *m, struct buf *out);
/** -1 ERR_INVALID: the mailbox cannot be written (empty parts, controls, bytes that are not UTF-8, a domain
 * that is none). */
MUST_CHECK int address_mailbox_check(const struct address_mailbox *m);
/** After header_write_begin. Every mailbox is one that the check takes. */
void address_list_write(const struct address_list *l, struct header_writer *w);
