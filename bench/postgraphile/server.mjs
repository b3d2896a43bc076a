// A peer of the serving benchmark: PostGraphile on the same tables, with its own defaults.
// One relation is told it, because the tables have no foreign keys, and that rows may be asked for
// by status, whose index leaves out hidden rows.
import { createServer } from "node:http";

import { grafserv } from "grafserv/node";
import { postgraphile } from "postgraphile";
import { makePgService } from "postgraphile/adaptors/pg";
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";
import { jsonPgSmartTags } from "postgraphile/utils";

const { BENCH_POSTGRAPHILE_DATABASE_URL: connectionString, BENCH_PORT: port } = process.env;
const byOrder = "(order_id) references build_1.orders (order_id)";
const asked = { tags: { behavior: ["+attribute:filterBy", "+condition:attribute:filterBy"] } };
const told = {
  class: { "build_1.payments": { tags: { foreignKey: byOrder } } },
  attribute: { "build_1.orders.status": asked, "build_1.orders.visible": asked },
};

const server = createServer();
const instance = postgraphile({
  extends: [PostGraphileAmberPreset],
  plugins: [jsonPgSmartTags({ version: 1, config: told })],
  pgServices: [makePgService({ connectionString, schemas: ["build_1"], poolConfig: { max: 16 } })],
  grafserv: { graphqlPath: "/graphql", watch: false, graphiql: false },
  grafast: { explain: false },
});
await instance.createServ(grafserv).addTo(server);
server.listen(Number(port), "127.0.0.1");
