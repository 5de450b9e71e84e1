/** The package stays outside of the bundle: its models and native libraries lie beside its code. */
export default { serverExternalPackages: ["miro-t2i"] };
