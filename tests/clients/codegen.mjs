// graphql-codegen's client preset: types that a strict program compiles with, and a manifest of
// trusted documents. Prints the manifest.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { preset } from '@graphql-codegen/client-preset';
import { codegen } from '@graphql-codegen/core';
import { buildSchema, parse } from 'graphql';

const SOURCE = 'codegen/queries.ts';
const schemaText = readFileSync('schema.graphql', 'utf-8');
const texts = [...readFileSync(SOURCE, 'utf-8').matchAll(/graphql\(`([^`]*)`\)/g)].map(([, text]) => text);

const outputs = await preset.buildGeneratesSection({
  baseOutputDir: 'codegen/made/',
  schema: parse(schemaText),
  schemaAst: buildSchema(schemaText),
  documents: texts.map((rawSDL) => ({ location: SOURCE, rawSDL, document: parse(rawSDL) })),
  config: {
    enumsAsTypes: true,
    strictScalars: true,
    useTypeImports: true,
    emitLegacyCommonJSImports: false,
    importExtension: '.js',
    scalars: { BigInt: 'string', CurrencyCode: 'string', Date: 'string', DateTime: 'string', Decimal: 'string' },
  },
  presetConfig: {
    fragmentMasking: false,
    persistedDocuments: { mode: 'embedHashInDocument', hashAlgorithm: 'sha256' },
  },
  plugins: [],
  pluginMap: {},
  pluginContext: {},
});
for (const output of outputs) {
  mkdirSync(dirname(output.filename), { recursive: true });
  writeFileSync(output.filename, await codegen(output));
}
const tsc = new URL('./bin/tsc', import.meta.resolve('typescript/package.json'));
execFileSync(process.execPath, [tsc.pathname, '--project', 'codegen'], { stdio: ['ignore', 2, 2] });
console.log(readFileSync('codegen/made/persisted-documents.json', 'utf-8'));
