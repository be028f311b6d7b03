// Checks the expected values of tests/unit/handlebars_cases.json against Handlebars itself, Debian's libjs-handlebars, run by node. Where the
// dialect is meant to differ a case says why (`differs`), and what the other prints (`js`, or `js_error`: it refuses the template).
// Exit 77, skipped, where the library is not installed. Usage: handlebars_diff.js CASES_JSON
//
// The helpers that the language does not have by itself are defined here by what our manual says of them, so that the cases can use them.
'use strict';
const fs = require('fs');

const LIBRARY = '/usr/share/javascript/handlebars/handlebars.js';
if (!fs.existsSync(LIBRARY)) {
	console.log(`${LIBRARY} is not there: libjs-handlebars is not installed`);
	process.exit(77);
}
const Handlebars = require(LIBRARY);

const isTrue = (v) => v !== 0 && !Handlebars.Utils.isEmpty(v);
const isEqual = (a, b) => (a == null ? b == null : JSON.stringify(a) === JSON.stringify(b));
function order(a, b) {
	if (typeof a === 'string' && typeof b === 'string')
		return a < b ? -1 : a > b ? 1 : 0;
	const numbers = [a, b].map((v) => (typeof v === 'number' ? v : typeof v === 'string' && v.trim() !== '' ? Number(v) : NaN));
	return numbers[0] < numbers[1] ? -1 : numbers[0] > numbers[1] ? 1 : numbers[0] === numbers[1] ? 0 : NaN;
}
const args = (list) => Array.prototype.slice.call(list, 0, -1);
function length(v) {
	return typeof v === 'string' ? [...v].length : v !== null && typeof v === 'object' ? Object.keys(v).length : 0;
}
const conditions = {
	eq: (a, b) => isEqual(a, b),
	ne: (a, b) => !isEqual(a, b),
	gt: (a, b) => order(a, b) > 0,
	gte: (a, b) => order(a, b) >= 0,
	lt: (a, b) => order(a, b) < 0,
	lte: (a, b) => order(a, b) <= 0,
	and: (...list) => list.every(isTrue),
	or: (...list) => list.some(isTrue),
	not: (a) => !isTrue(a),
};

function environment() {
	const hb = Handlebars.create();
	hb.log = () => {};
	for (const [name, fn] of Object.entries(conditions)) {
		hb.registerHelper(name, function () {
			const options = arguments[arguments.length - 1], value = fn(...args(arguments));
			return options.fn === undefined ? value : value ? options.fn(this) : options.inverse(this);
		});
	}
	hb.registerHelper('len', length);
	hb.registerHelper('raw', (options) => options.fn());
	return hb;
}

function render(c, context) {
	try {
		return { out: environment().compile(c.source, { noEscape: c.escape === 'none' })(context) };
	} catch (e) {
		return { error: String(e.message) };
	}
}

const doc = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
let bad = 0, different = 0;
for (const c of doc.cases) {
	if (c.escape === 'json')
		continue; // no such mode there
	const got = render(c, doc.contexts[c.context]);
	const want = 'differs' in c ? { out: c.js, error: c.js_error } : c;
	different += 'differs' in c;
	if (got.out !== want.out || ('error' in got) !== (want.error !== undefined)) {
		bad++;
		console.log(JSON.stringify(c), '\n  Handlebars says', JSON.stringify(got));
	}
}
console.log(`${doc.cases.length} cases, ${different} meant to differ, ${bad} not as Handlebars ${Handlebars.VERSION} has them`);
process.exit(bad > 0 ? 1 : 0);
