import type { Dashboard } from "@grafana/schema";
// Grafana's published types of a dashboard, against which `cargo xtask test --long` checks the JSON.
// Enums by their values, as JSON has them; and what the Prometheus plugin and the query variable add
// to the models that the schema leaves open.
type Variable = { definition?: string };
type Annotation = { expr?: string; step?: string; titleFormat?: string; textFormat?: string; tagKeys?: string; useValueForTime?: boolean };
type Json<T> = T extends string ? (string extends T ? string : `${T}`)
  : T extends number ? (number extends T ? number : `${T}` extends `${infer N extends number}` ? N : never)
  : T extends (infer U)[] ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> } & (T extends { skipUrlSync?: boolean } ? Variable : {}) & (T extends { iconColor: string } ? Annotation : {})
  : T;
export type Checked = Json<Dashboard>;
