// graphql-sse: queries and live queries as streams of events, each on a connection of its own.
import { createClient } from 'graphql-sse';
import { FOLLOWED, LIVE, told, untilTold, url, walk } from './scenario.mjs';
import { patience, resuming } from './session.mjs';

const client = createClient({ url, retryAttempts: Infinity, retry: patience.retryWait });
const session = resuming(client);

await walk(
  (query, variables) =>
    new Promise((resolve, reject) => {
      let answer;
      const next = (result) => (answer = result.data);
      session.subscribe({ query, variables }, { next, error: reject, complete: () => resolve(answer) });
    }),
);
session.subscribe({ query: LIVE, variables: { id: FOLLOWED } }, told);
await untilTold();
