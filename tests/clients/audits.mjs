// Prints what every audit of graphql-http makes of the server at the address given.
import { serverAudits } from 'graphql-http';

const url = process.argv[2];
// A GET carries the header that tells it from a link, as every real client of ours does.
const fetchFn = (address, init = {}) =>
  fetch(address, { ...init, headers: { ...init.headers, 'viewkeeper-preflight': '1' } });

const results = [];
for (const audit of serverAudits({ url, fetchFn })) {
  const { status, reason } = await audit.fn();
  results.push({ id: audit.id, name: audit.name, status, reason });
}
console.log(JSON.stringify(results));
