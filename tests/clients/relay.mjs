// Relay: its compiler accepts the schema, its store merges pages, refetches by id and is updated live.
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import relayCompiler from 'relay-compiler';
import relay from 'relay-runtime';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { FOLLOWED, PAGE, say, SHIPPED, socketUrl, told, untilTold, url } from './scenario.mjs';
import { patience, resuming, sessionFetch } from './session.mjs';

const { Environment, Network, Observable, RecordSource, Store } = relay;
const { createOperationDescriptor, getSingularSelector, requestSubscription } = relay;

mkdirSync('relay/made', { recursive: true });
execFileSync(relayCompiler, ['relay.config.json'], { cwd: 'relay', stdio: ['ignore', 2, 2] });
const require = createRequire(import.meta.url);
const made = (name) => require(`./relay/made/${name}.graphql.js`);

const ask = sessionFetch();
const sockets = resuming(createClient({ url: socketUrl, webSocketImpl: WebSocket, ...patience }));
const environment = new Environment({
  store: new Store(new RecordSource()),
  network: Network.create(
    async ({ text, name }, variables) => {
      const response = await ask(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json' },
        body: JSON.stringify({ query: text, operationName: name, variables }),
      });
      return response.json();
    },
    ({ text, name }, variables) =>
      Observable.create((sink) =>
        sockets.subscribe(
          { query: text, operationName: name, variables },
          {
            ...sink,
            next(result) {
              told.next(result);
              sink.next(result);
            },
          },
        ),
      ),
  ),
});

// Run a query and keep what it brought; the snapshot of the fragment in it.
const load = async (query, fragment, variables, typename = 'Query') => {
  const operation = createOperationDescriptor(made(query), variables);
  environment.retain(operation);
  await environment.execute({ operation }).toPromise();
  const { data } = environment.lookup(operation.fragment);
  const found = typename === 'Query' ? data : data.node;
  return environment.lookup(getSingularSelector(made(fragment), found));
};

// Pages, merged by Relay's own handler of connections.
const merged = async (query, fragment, more) => {
  let { data } = await load(query, fragment, more());
  while (more(data.orders.pageInfo)) {
    ({ data } = await load(query, fragment, more(data.orders.pageInfo)));
  }
  return data.orders.edges.map(({ node }) => node);
};

const nodes = await merged('queriesForwardQuery', 'queriesForward_page', (info) => {
  if (info && !info.hasNextPage) return null;
  return { first: PAGE, after: info?.endCursor };
});
const back = await merged('queriesBackQuery', 'queriesBack_page', (info) => {
  if (info && !info.hasPreviousPage) return null;
  return { last: PAGE, before: info?.startCursor };
});
const ids = (found) => found.map((node) => node.orderId);
say('pages', { forward: ids(nodes), back: ids(back) });
const filtered = await load('queriesForwardQuery', 'queriesForward_page', {
  first: 100,
  where: SHIPPED,
});
say('filter', { ids: ids(filtered.data.orders.edges.map(({ node }) => node)) });

// The same object again, by its id alone; and the live query changes it where it lies.
const { id } = nodes.find((node) => node.orderId === FOLLOWED);
const order = await load('queriesOrderQuery', 'queriesOrder_order', { id }, 'Node');
say('node', { orderId: order.data.orderId });
environment.subscribe(order, ({ data }) => say('cache', { status: data.status }));
requestSubscription(environment, {
  subscription: made('queriesLiveSubscription'),
  variables: { id: FOLLOWED },
  onError: told.error,
  onCompleted: told.complete,
});
await untilTold();
