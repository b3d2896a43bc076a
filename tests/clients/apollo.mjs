// Apollo Client with its cache: pages are merged there, and a live query updates what they hold.
import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { relayStylePagination } from '@apollo/client/utilities';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { FOLLOWED, LIVE, PAGE, say, SHIPPED, socketUrl, told, untilTold, url } from './scenario.mjs';
import { patience, resuming, sessionFetch } from './session.mjs';

const sockets = createClient({ url: socketUrl, webSocketImpl: WebSocket, ...patience });
const makeClient = () =>
  new ApolloClient({
    link: ApolloLink.split(
      ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
      new GraphQLWsLink(resuming(sockets)),
      new HttpLink({ uri: url, fetch: sessionFetch() }),
    ),
    cache: new InMemoryCache({
      typePolicies: {
        Query: { fields: { orders: relayStylePagination(['where', 'orderBy']) } },
      },
    }),
  });

const ORDERS = gql`
  query Orders($first: Int, $after: String, $last: Int, $before: String, $where: OrderWhere) {
    orders(first: $first, after: $after, last: $last, before: $before, where: $where) {
      edges { cursor node { id orderId status } }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }`;

const ids = ({ edges }) => edges.map(({ node }) => node.orderId);

// Every page, merged by the cache; what is read is what the cache shows for the first question.
const merged = async (client, first, more) => {
  const pages = client.watchQuery({ query: ORDERS, variables: first });
  let watching;
  await new Promise((resolve, reject) => {
    const next = ({ loading, error }) => (error ? reject(error) : loading || resolve());
    watching = pages.subscribe({ next, error: reject });
  });
  const shown = () => client.readQuery({ query: ORDERS, variables: first }).orders;
  for (let next = more(shown().pageInfo); next; next = more(shown().pageInfo)) {
    const before = shown().edges.length;
    await pages.fetchMore({ variables: next });
    if (shown().edges.length === before) throw new Error('a page brought nothing');
  }
  watching.unsubscribe();
  return ids(shown());
};

const client = makeClient();
const forward = await merged(client, { first: PAGE }, (info) =>
  info.hasNextPage ? { first: PAGE, after: info.endCursor } : null,
);
const back = await merged(makeClient(), { last: PAGE }, (info) =>
  info.hasPreviousPage ? { first: undefined, last: PAGE, before: info.startCursor } : null,
);
say('pages', { forward, back });
const filtered = await client.query({ query: ORDERS, variables: { first: 100, where: SHIPPED } });
say('filter', { ids: ids(filtered.data.orders) });

// The order is in the cache by its id: what the live query brings shows there.
const cached = () =>
  client.cache
    .readQuery({ query: ORDERS, variables: { first: PAGE } })
    .orders.edges.find(({ node }) => node.orderId === FOLLOWED).node.status;
client.subscribe({ query: gql(LIVE), variables: { id: FOLLOWED } }).subscribe({
  ...told,
  next(result) {
    if (result.error) told.error(result.error);
    else {
      told.next(result);
      say('cache', { status: cached() });
    }
  },
});
await untilTold();
