// What every client goes through, and how it tells of it: one JSON object a line.
import { createInterface } from 'node:readline';

const [base] = process.argv.slice(2);
export const url = `${base}/graphql`;
export const socketUrl = url.replace('http', 'ws');

export const PAGE = 7;
export const SHIPPED = { status: { eq: 'SHIPPED' } };
export const FOLLOWED = 'o001';

export const ORDERS = `
  query Orders($first: Int, $after: String, $last: Int, $before: String, $where: OrderWhere) {
    orders(first: $first, after: $after, last: $last, before: $before, where: $where) {
      nodes { orderId }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }`;
export const LIVE = `subscription Live($id: String!) { order(orderId: $id) { id status } }`;

export const say = (step, evidence = {}) => console.log(JSON.stringify({ step, ...evidence }));

// Pages there and back and a filter, by a client that asks with text and keeps nothing itself.
export const walk = async (ask) => {
  const orders = async (variables) => (await ask(ORDERS, variables)).orders;
  const ids = (page) => page.nodes.map((node) => node.orderId);
  let page = await orders({ first: PAGE });
  const forward = ids(page);
  while (page.pageInfo.hasNextPage) {
    page = await orders({ first: PAGE, after: page.pageInfo.endCursor });
    forward.push(...ids(page));
  }
  page = await orders({ last: PAGE });
  const back = ids(page);
  while (page.pageInfo.hasPreviousPage) {
    page = await orders({ last: PAGE, before: page.pageInfo.startCursor });
    back.unshift(...ids(page));
  }
  say('pages', { forward, back });
  say('filter', { ids: ids(await orders({ first: 100, where: SHIPPED })) });
};

// What a live query brings.
export const told = {
  next(result) {
    if (result.errors?.length) {
      say('failed', { errors: result.errors });
      return;
    }
    const { position, resultId } = result.extensions.consistency;
    say('live', { status: result.data.order.status, position, resultId });
  },
  error: (error) => say('failed', { error: String(error?.message ?? error) }),
  complete: () => say('completed'),
};

// Until the test has seen enough: it closes our standard input.
export const untilTold = async () => {
  for await (const line of createInterface({ input: process.stdin })) void line;
  say('end');
  process.exit(0);
};
