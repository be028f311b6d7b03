/* address_list.c - one pass. An element of the list begins with words (atoms, quoted strings and what stands
 * for atoms); the byte after them says what they were: `<` a display name, `:` the name of a group, `@` a
 * local part. Words are gathered in two forms: as a display name, with one blank where there were any, and as
 * a local part, with none; blanks that a local part may not have are remembered. */
#include "mime/address_list.h"

#include "base/err.h"
#include "mime/charset.h"
#include "mime/header.h"
#include "mime/header_lex.h"
#include "mime/idna.h"

struct address_parser {
	struct header_lex lex;
	struct address_list *out;
	size_t cap; /* of out->v */
	struct address_mailbox *member;
	size_t n_members, cap_members;
	bool has_groups; /* may have */
	/* The words at hand. */
	struct buf phrase, local;
	size_t n_words;
	bool is_spread; /* blanks between words that no dot explains: no local part */
	bool is_last_dot;
	struct buf comment;
};

static int address_fail(const struct address_parser *p, const char *what)
{
	int c = header_lex_peek(&p->lex);
	if (c < 0)
		err_set(ERR_INVALID, "invalid address: %s, found the end", what);
	else if (c <= 0x20 || c >= 0x7f)
		err_set(ERR_INVALID, "invalid address: %s, found byte 0x%02x at position %zu", what,
			(unsigned)c, p->lex.at + 1);
	else
		err_set(ERR_INVALID, "invalid address: %s, found '%c' at position %zu", what, c,
			p->lex.at + 1);
	return -1;
}

static int address_skip(struct address_parser *p)
{
	return header_lex_skip(&p->lex, &p->comment) ? 0 : address_fail(p, "a comment has no end");
}

/* Atoms, and what senders leave without quotes in names. */
static bool is_word_byte(unsigned char c)
{
	return header_is_atext(c) || c == '.' || c == '[' || c == ']' || c == '\\';
}

static bool is_domain_byte(unsigned char c)
{
	return header_is_atext(c) || c == '.';
}

static bool is_literal_byte(unsigned char c)
{
	return c > ' ' && c < 0x7f && c != '[' && c != ']' && c != '\\';
}

static str_t address_keep(struct address_parser *p, str_t s)
{
	return arena_str(&p->out->arena, s);
}

/* As UTF-8, whatever it was. */
static str_t address_keep_text(struct address_parser *p, str_t s)
{
	struct buf b = BUF_INIT;
	charset_to_utf8_lenient(STR(""), s, &b);
	str_t kept = address_keep(p, buf_str(&b));
	buf_fini(&b);
	return kept;
}

static str_t address_keep_name(struct address_parser *p, str_t phrase)
{
	struct buf b = BUF_INIT;
	header_decode_lenient(phrase, &b);
	str_t name = b.n > 0 ? address_keep(p, buf_str(&b)) : STR_NULL;
	buf_fini(&b);
	return name;
}

/* --- words --- */

static int address_read_words(struct address_parser *p)
{
	bool was_blank = false;
	buf_clear(&p->phrase);
	buf_clear(&p->local);
	p->n_words = 0, p->is_spread = false, p->is_last_dot = false;
	for (;;) {
		size_t before = p->lex.at;
		if (address_skip(p) != 0)
			return -1;
		was_blank = p->lex.at != before;
		int c = header_lex_peek(&p->lex);
		bool is_quoted = c == '"';
		if (c < 0 || (!is_quoted && !is_word_byte((unsigned char)c)))
			return 0;
		size_t mark = p->local.n;
		if (is_quoted && !header_lex_quoted(&p->lex, &p->local))
			return address_fail(p, "a quoted string has no end");
		if (!is_quoted)
			buf_add_str(&p->local, header_lex_run(&p->lex, is_word_byte));
		str_t word = str_skip(buf_str(&p->local), mark);
		bool is_dot = !is_quoted && word.n > 0 && word.p[0] == '.';
		if (p->n_words > 0 && was_blank)
			buf_add_c(&p->phrase, ' ');
		if (p->n_words > 0 && was_blank && !p->is_last_dot && !is_dot)
			p->is_spread = true;
		buf_add_str(&p->phrase, word);
		p->is_last_dot = !is_quoted && word.n > 0 && word.p[word.n - 1] == '.';
		p->n_words++;
	}
}

/* --- local@domain --- */

static int address_read_domain(struct address_parser *p, struct buf *out)
{
	if (address_skip(p) != 0)
		return -1;
	if (header_lex_eat(&p->lex, '[')) {
		buf_add_c(out, '[');
		buf_add_str(out, header_lex_run(&p->lex, is_literal_byte));
		buf_add_c(out, ']');
		return header_lex_eat(&p->lex, ']')
			       ? 0
			       : address_fail(p, "expected ']' after the address literal");
	}
	for (;;) {
		str_t part = header_lex_run(&p->lex, is_domain_byte);
		buf_add_str(out, part);
		size_t end = p->lex.at;
		bool is_dot = part.n > 0 && part.p[part.n - 1] == '.';
		if (address_skip(p) != 0)
			return -1;
		int c = header_lex_peek(&p->lex);
		if (part.n > 0 && (is_dot || c == '.') && c >= 0 && is_domain_byte((unsigned char)c))
			continue; /* blanks around a dot: obs-domain */
		if (out->n == 0 || out->p[0] == '.' || out->p[out->n - 1] == '.' ||
		    str_find(buf_str(out), STR("..")) >= 0) {
			p->lex.at = part.n > 0 ? end : p->lex.at;
			return address_fail(p, "expected a domain");
		}
		return 0;
	}
}

/* The words at hand are the local part, the cursor is behind the `@`. */
static int address_read_mailbox(struct address_parser *p, struct address_mailbox *out)
{
	struct buf domain = BUF_INIT;
	if (p->n_words == 0 || p->is_spread || p->local.n == 0) {
		p->lex.at--;
		return address_fail(p, p->is_spread ? "the part before the '@' has blanks in it"
						    : "expected a local part");
	}
	str_t local = address_keep_text(p, buf_str(&p->local));
	int rc = address_read_domain(p, &domain);
	if (rc == 0)
		*out = (struct address_mailbox){.local = local,
						.domain = address_keep_text(p, buf_str(&domain))};
	buf_fini(&domain);
	return rc;
}

/* "@a,@b:" before the address: not used by anybody any more. */
static int address_skip_route(struct address_parser *p)
{
	struct buf ignored = BUF_INIT;
	int rc = 0;
	bool has_route = false;
	while (rc == 0) {
		rc = address_skip(p);
		if (rc == 0 && has_route && header_lex_eat(&p->lex, ','))
			continue;
		if (rc != 0 || !header_lex_eat(&p->lex, '@'))
			break;
		has_route = true;
		buf_clear(&ignored);
		rc = address_read_domain(p, &ignored);
	}
	buf_fini(&ignored);
	if (rc == 0 && has_route && !header_lex_eat(&p->lex, ':'))
		rc = address_fail(p, "expected ':' after the source route");
	return rc;
}

/* Behind the `<`. */
static int address_read_angle(struct address_parser *p, struct address_mailbox *out)
{
	if (address_skip_route(p) != 0 || address_read_words(p) != 0)
		return -1;
	if (!header_lex_eat(&p->lex, '@'))
		return address_fail(p, "expected '@'");
	if (address_read_mailbox(p, out) != 0)
		return -1;
	return header_lex_eat(&p->lex, '>') ? 0 : address_fail(p, "expected '>'");
}

/* --- elements --- */

/* An address without brackets, unless a bracket follows: then it was a display name without quotes. */
static int address_read_bare(struct address_parser *p, struct address_mailbox *out)
{
	struct buf name = BUF_INIT;
	buf_add_str(&name, buf_str(&p->phrase));
	buf_clear(&p->comment);
	int rc = address_read_mailbox(p, out);
	if (rc == 0 && header_lex_eat(&p->lex, '<')) {
		buf_add_c(&name, '@');
		buf_add_str(&name, out->domain);
		rc = address_read_angle(p, out);
		out->name = rc == 0 ? address_keep_name(p, buf_str(&name)) : STR_NULL;
	} else if (rc == 0) {
		out->name = address_keep_name(p, buf_str(&p->comment)); /* user@example.com (A. User) */
	}
	buf_fini(&name);
	return rc;
}

static struct address *address_append(struct address_parser *p)
{
	struct address_list *l = p->out;
	if (l->n == p->cap) {
		size_t cap = p->cap == 0 ? 4 : p->cap * 2;
		struct address *v = arena_alloc(&l->arena, cap * sizeof *v);
		if (l->n > 0)
			memcpy(v, l->v, l->n * sizeof *v);
		l->v = v, p->cap = cap;
	}
	return &l->v[l->n++];
}

static void address_append_member(struct address_parser *p, struct address *group,
				  const struct address_mailbox *m)
{
	if (group == NULL) {
		*address_append(p) = (struct address){.box = *m};
		return;
	}
	if (group->n_members == p->cap_members) {
		size_t cap = p->cap_members == 0 ? 4 : p->cap_members * 2;
		struct address_mailbox *v = arena_alloc(&p->out->arena, cap * sizeof *v);
		if (group->n_members > 0)
			memcpy(v, group->member, group->n_members * sizeof *v);
		group->member = v, p->cap_members = cap;
	}
	group->member[group->n_members++] = *m;
}

/* The words at hand and what follows them, up to the comma. *group: the group that is open. */
static int address_read_element(struct address_parser *p, struct address **group)
{
	struct address_mailbox m = {0};
	if (header_lex_eat(&p->lex, '<')) {
		str_t name = p->n_words > 0 ? address_keep_name(p, buf_str(&p->phrase)) : STR_NULL;
		if (address_read_angle(p, &m) != 0)
			return -1;
		m.name = name;
	} else if (header_lex_eat(&p->lex, '@')) {
		if (address_read_bare(p, &m) != 0)
			return -1;
	} else if (header_lex_peek(&p->lex) == ':' && p->n_words > 0 && *group == NULL) {
		if (!p->has_groups)
			return address_fail(p, "expected an address, not a group");
		p->lex.at++;
		str_t name = address_keep_name(p, buf_str(&p->phrase));
		*group = address_append(p);
		**group = (struct address){.is_group = true, .box.name = name.p != NULL ? name : STR("")};
		p->cap_members = 0;
		return 0;
	} else {
		return address_fail(p, p->n_words > 0 ? "expected '@' or '<' after a name"
						      : "expected an address");
	}
	address_append_member(p, *group, &m);
	return address_skip(p);
}

static int address_read_list(struct address_parser *p)
{
	struct address *group = NULL;
	for (bool is_due = true;;) { /* an address may come: at the start, and after a comma or colon */
		if (address_read_words(p) != 0)
			return -1;
		int c = header_lex_peek(&p->lex);
		if (c < 0 && p->n_words == 0)
			return 0; /* the `;` of the last group is missing at times */
		if (p->n_words == 0 && (c == ',' || (c == ';' && group != NULL))) {
			p->lex.at++;
			is_due = true;
			if (c == ';')
				group = NULL;
			continue;
		}
		if (!is_due)
			return address_fail(p, "expected ','");
		struct address *before = group;
		if (address_read_element(p, &group) != 0)
			return -1;
		is_due = group != before;
	}
}

static int address_list_read(str_t value, bool has_groups, struct address_list *out)
{
	struct address_list l = {.arena = ARENA_INIT};
	struct address_parser p = {.lex = {value, 0}, .out = &l, .has_groups = has_groups};
	for (size_t i = 0; i < value.n; i++) {
		unsigned char c = (unsigned char)value.p[i];
		if ((c < 0x20 && c != '\t' && c != '\r' && c != '\n') || c == 0x7f) {
			p.lex.at = i;
			return address_fail(&p, "expected no control characters");
		}
	}
	int rc = address_read_list(&p);
	buf_fini(&p.phrase);
	buf_fini(&p.local);
	buf_fini(&p.comment);
	if (rc == 0)
		*out = l;
	else
		arena_fini(&l.arena);
	return rc;
}

int address_list_parse(str_t value, struct address_list *out)
{
	return address_list_read(value, true, out);
}

int address_list_parse_mailboxes(str_t value, struct address_list *out)
{
	return address_list_read(value, false, out);
}

void address_list_fini(struct address_list *l)
{
	arena_fini(&l->arena);
	*l = (struct address_list){0};
}

/* --- writing --- */

static bool local_is_dot_atom(str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		bool is_edge = i == 0 || i + 1 == s.n || s.p[i + 1] == '.';
		if (s.p[i] == '.' ? is_edge : !header_is_atext((unsigned char)s.p[i]))
			return false;
	}
	return s.n > 0;
}

static bool byte_is_any(unsigned char c)
{
	return true;
}

static bool byte_is_none(unsigned char c)
{
	return false;
}

void address_add_email(const struct address_mailbox *m, struct buf *out)
{
	header_add_quoted(out, m->local, local_is_dot_atom(m->local) ? byte_is_any : byte_is_none);
	buf_add_c(out, '@');
	buf_add_str(out, m->domain);
}

static bool domain_is_valid(str_t s)
{
	if (s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']') {
		for (size_t i = 1; i + 1 < s.n; i++)
			if (!is_literal_byte((unsigned char)s.p[i]))
				return false;
		return true;
	}
	return local_is_dot_atom(s);
}

int address_mailbox_check(const struct address_mailbox *m)
{
	struct buf email = BUF_INIT;
	address_add_email(m, &email);
	const char *why = m->local.n == 0 || m->local.n > 512 ? "the local part is empty or too long"
			  : header_has_controls(m->local) || header_has_controls(m->name)
				  ? "it has a control character"
			  : !str_is_utf8(buf_str(&email)) || !str_is_utf8(m->name) ? "the bytes are not UTF-8"
			  : !domain_is_valid(m->domain) || m->domain.n > 255	   ? "the domain is none"
										   : NULL;
	if (why != NULL)
		err_set(ERR_INVALID, "invalid address: %s", why);
	buf_fini(&email);
	return why == NULL ? 0 : -1;
}

static void address_write_mailbox(const struct address_mailbox *m, struct header_writer *w)
{
	struct buf email = BUF_INIT;
	struct mailbox mb;
	address_add_email(m, &email);
	if (mailbox_parse(buf_str(&email), &mb) == 0) {
		struct buf ascii = BUF_INIT;
		if (mailbox_ascii(&mb, &ascii) == 0) {
			buf_clear(&email);
			buf_add_str(&email, buf_str(&ascii));
		}
		buf_fini(&ascii);
	}
	err_clear(); /* what SMTP would not take stays as it is */
	header_write_mailbox(w, m->name, buf_str(&email));
	buf_fini(&email);
}

void address_list_write(const struct address_list *l, struct header_writer *w)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct address *a = &l->v[i];
		if (i > 0)
			buf_add_c(w->out, ',');
		if (!a->is_group) {
			address_write_mailbox(&a->box, w);
			continue;
		}
		header_write_phrase(w, a->box.name);
		buf_add_c(w->out, ':');
		for (size_t k = 0; k < a->n_members; k++) {
			if (k > 0)
				buf_add_c(w->out, ',');
			address_write_mailbox(&a->member[k], w);
		}
		buf_add_c(w->out, ';');
	}
}
