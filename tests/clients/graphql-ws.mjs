// graphql-ws: everything over one WebSocket.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { FOLLOWED, LIVE, socketUrl, told, untilTold, walk } from './scenario.mjs';
import { patience, resuming } from './session.mjs';

const client = createClient({ url: socketUrl, webSocketImpl: WebSocket, ...patience });
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
