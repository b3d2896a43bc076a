// urql with its cache: queries by fetch, live queries through its subscription exchange.
import { cacheExchange, Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { FOLLOWED, LIVE, socketUrl, told, untilTold, url, walk } from './scenario.mjs';
import { patience, resuming, sessionFetch } from './session.mjs';

const sockets = resuming(createClient({ url: socketUrl, webSocketImpl: WebSocket, ...patience }));
const client = new Client({
  url,
  fetch: sessionFetch(),
  preferGetMethod: false,
  exchanges: [
    cacheExchange,
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: (request) => ({
        subscribe: (sink) => ({ unsubscribe: sockets.subscribe(request, sink) }),
      }),
    }),
  ],
});

await walk(async (query, variables) => {
  const { data, error } = await client.query(query, variables).toPromise();
  if (error) throw error;
  return data;
});
client.subscription(LIVE, { id: FOLLOWED }).subscribe((result) => {
  if (result.error) told.error(result.error);
  else told.next(result);
});
await untilTold();
